"""Direct quantisation through the Python face: what is stored, what is refused, what is kept when it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

import taut
from taut.errors import ArgumentError, DataError, Interrupted, QualityError, TransformError
from taut.graph import capture, graph_cost
from taut.numerics import convolution_rows, encode, get_format, get_scheme
from taut.optimize import Result, load
from taut.optimize._layers import stored_layers
from taut.optimize._mixing import parse_bytes
from taut.transform import SensitivityTable, apply_recipe

pytestmark = pytest.mark.usefixtures("made_up_host")

# In this format no kernel of a later branch is needed: weights alone, computed in float32.
WEIGHTS = "vsq4-v16-s4"


class Words(torch.nn.Module):
    """An embedding, two linear layers of which the second is narrow, and nothing to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 32)
        self.hidden = torch.nn.Linear(32, 48)
        self.head = torch.nn.Linear(48, 8)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.table(words).mean(1))))


def words() -> Words:
    torch.manual_seed(0)
    return Words().eval()


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    inputs = torch.randint(0, 64, (128, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return {"inputs": (inputs,), "labels": words()(inputs).argmax(1)}


def quantize(data: dict[str, Any] | None, **wanted: Any) -> Result:
    keywords: dict[str, Any] = {"data": data, "max_drop": "50%", "budget": 1, "format": WEIGHTS, **wanted}
    return taut.quantize(words(), (torch.arange(192).reshape(16, 12) % 64,), **keywords)


@pytest.fixture(scope="module")
def result(made_up_host: None, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return quantize(data, out=tmp_path_factory.mktemp("quantised") / "words.taut")


def test_sizes_are_those_of_the_formats_to_the_byte(result: Result) -> None:
    form = get_format(WEIGHTS)
    model = words()
    before = sum(parameter.numel() * 4 for parameter in model.parameters())
    saved = sum(part.weight.numel() * 4 - form.nbytes(tuple(part.weight.shape)) for part in (model.table, model.hidden))
    size = result.report.size_bytes
    assert size is not None
    assert (size.before, size.after) == (before, before - saved)
    assert size.after == sum(value.numel() * value.element_size() for value in result.session.graph.constants.values())
    assert int(graph_cost(result.session.graph).parameters) > 0


def test_every_weight_is_listed_with_its_error(result: Result) -> None:
    rows = {layer.path: layer for layer in result.report.layers}
    assert {path: (row.kind, row.format, row.runs) for path, row in rows.items()} == {
        "table": ("embedding", WEIGHTS, "kernel"),
        "hidden": ("linear", WEIGHTS, "emulated"),
        "head": ("linear", "float32", "unchanged"),
    }
    weight = words().hidden.weight.detach()
    noise = (weight - encode(weight, get_format(WEIGHTS)).decode()).double().square().sum()
    expected = 10 * float(torch.log10(weight.double().square().sum() / noise))
    assert rows["hidden"].sqnr_db == pytest.approx(expected, abs=1e-3)
    assert rows["head"].sqnr_db is None
    assert rows["hidden"].bits == pytest.approx(get_format(WEIGHTS).bits_per_element((48, 32)))
    assert rows["hidden"].bytes_after == get_format(WEIGHTS).nbytes((48, 32))


def test_the_bundle_runs_and_its_recipe_replays_to_the_same_graph(result: Result, data: dict[str, Any]) -> None:
    assert result.bundle is not None
    inputs = data["inputs"][0][:20]
    assert torch.equal(load(result.bundle)(inputs), result(inputs))
    assert result.report.job == "quantize"
    assert result.report.goal == "size"
    again = taut.optimize(
        words(), (inputs[:16],), data=data, max_drop="50%", budget=1, goal="size", recipe=result.bundle
    )
    assert again.session.graph.constants.keys() == result.session.graph.constants.keys()


def test_layers_take_their_own_scheme_or_stay(data: dict[str, Any]) -> None:
    made = quantize(data, layers={"hidden": "int8-channel", "head": "q4_0"}, skip=("table",))
    assert [(row.path, row.format) for row in made.report.layers] == [
        ("table", "float32"),
        ("hidden", "int8-channel"),
        ("head", "q4_0"),
    ]


def test_what_loses_more_than_allowed_is_refused_with_the_figure(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(QualityError, match=r"int2-channel: accuracy 1 -> .* may lose .* allowed 0\.001") as refusal:
        quantize(data, format="int2-channel", max_drop="0.1%", out=tmp_path / "words.taut")
    assert "--max-drop" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [{"max_bits": 7.2}, {"max_bytes": 5000}, {"max_bytes": "5kB"}])
def test_a_budget_is_kept_by_mixing(data: dict[str, Any], limit: dict[str, Any]) -> None:
    made = quantize(data, format=(WEIGHTS, "int8-channel"), **limit)
    rows = made.report.layers
    mixed = [row for row in rows if row.path != "head"]
    assert {row.format for row in mixed} == {WEIGHTS, "int8-channel"}
    assert all(row.error is not None for row in mixed)
    assert any("labels were not used" in warning for warning in made.report.warnings)
    size = made.report.size_bytes
    assert size is not None
    assert size.after is not None
    if "max_bytes" in limit:
        assert size.after <= 5000
    else:
        assert 8 * sum(row.bytes_after for row in mixed) <= 7.2 * sum(row.elements for row in mixed)


def test_what_the_user_assigns_counts_with_its_own_bytes(data: dict[str, Any]) -> None:
    # With the table at 32 bits nothing could keep this budget; at int8 the hidden layer may stay as it is.
    made = quantize(data, format=WEIGHTS, layers={"table": "int8-channel"}, max_bytes=10_500)
    formats = {row.path: row.format for row in made.report.layers}
    assert formats == {"table": "int8-channel", "hidden": "float32", "head": "float32"}


def test_a_budget_that_nothing_keeps_names_the_least_one(data: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"--max-bits: got 2\.0") as refusal:
        quantize(data, max_bits=2.0)
    least = 8 * (get_format(WEIGHTS).nbytes((64, 32)) + get_format(WEIGHTS).nbytes((48, 32))) / (64 * 32 + 48 * 32)
    assert f"{least:.3f} bits" in str(refusal.value)
    with pytest.raises(ArgumentError, match="--max-bytes"):
        quantize(data, max_bytes=100)


@pytest.mark.parametrize(
    ("wanted", "argument", "word"),
    [
        ({"format": "vqs-w4a8-v16"}, "--format", "vsq-w4a8-v16"),
        ({"format": "float32"}, "--format", "taut formats"),
        ({"format": ("q4_0", "mxfp4")}, "--format", "--max-bits"),
        ({"layers": {"hidden": "q4-0"}}, "--layer", "q4_0"),
        ({"layers": {"hiden": "q4_0"}}, "hiden", "hidden"),
        ({"max_bits": 4, "max_bytes": 4}, "--max-bytes", "one of"),
        ({"max_bits": 0.5}, "--max-bits", "between"),
        ({"max_bytes": "5 apples"}, "--max-bytes", "MiB"),
        ({"max_bits": 5, "data": None}, "--data", "sensitive"),
        ({"max_drop": "lots"}, "--max-drop", "1%"),
    ],
)
def test_wrong_arguments_are_named_with_what_would_be_right(
    data: dict[str, Any], wanted: dict[str, Any], argument: str, word: str
) -> None:
    with pytest.raises(ArgumentError) as refusal:
        quantize(**{"data": data, **wanted})
    assert argument in str(refusal.value)
    assert word in str(refusal.value)


def test_a_vector_size_that_does_not_divide_leaves_a_shorter_last_vector(data: dict[str, Any]) -> None:
    form = get_format("vsq4-v61-s4")
    rows = {row.path: row for row in quantize(data, format=form.name).report.layers}
    assert rows["hidden"].bytes_after == form.nbytes((48, 32))


def test_weights_that_are_not_finite_are_refused_by_name(data: dict[str, Any]) -> None:
    model = words()
    with torch.no_grad():
        model.table.weight[63, 0] = float("inf")
    inputs = data["inputs"][0].clamp(max=62)
    with pytest.raises(TransformError, match=r"table\.weight"):
        taut.quantize(model, (inputs[:16],), data={"inputs": (inputs,)}, format=WEIGHTS, budget=1)


def test_data_of_the_wrong_shape_is_refused(data: dict[str, Any]) -> None:
    flat = {"inputs": (torch.zeros(32, dtype=torch.long),)}
    with pytest.raises(DataError, match="shape"):
        taut.quantize(words(), (data["inputs"][0][:16],), data=flat, format=WEIGHTS)


def test_ctrl_c_while_sensitivity_is_measured_keeps_the_table(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []

    def stop(doing: str, _share: float) -> None:
        if "sensitivity" in doing:
            seen.append(doing)
            if len(seen) == 2:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        quantize(data, max_bits=5, progress=stop, out=tmp_path / "words.taut")
    assert isinstance(stopped.value.result, SensitivityTable)
    assert len(stopped.value.result.entries) >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_ctrl_c_while_the_result_is_scored_keeps_it_marked_as_partial(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from taut.optimize import _search as searching

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(searching.Judge, "judge", stop)
    with pytest.raises(Interrupted, match=r"words\.taut"):
        quantize(data, out=tmp_path / "words.taut")
    report = load(tmp_path / "words.taut").report
    assert report.status == "partial"
    assert [row.format for row in report.layers] == [WEIGHTS, WEIGHTS, "float32"]


@pytest.mark.parametrize(
    ("text", "count"), [(7, 7), ("7", 7), ("1.5MB", 1_500_000), ("2 KiB", 2048), ("0.5gb", 500_000_000)]
)
def test_byte_counts_have_units(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "-1", "0", "1e9", "nan", "12 MiBs", "9" * 40, "MB"])
def test_what_is_no_byte_count_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="--max-bytes"):
        parse_bytes(text)


@pytest.mark.parametrize("scheme", ["poc-w8a8", "vsq-w4a8-v16"])
def test_what_a_kernel_holds_is_what_the_codec_stores(scheme: str) -> None:
    """The packed weights are read back through their kernels, and lose what the bare format loses."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(20, 32, 3, padding=1), torch.nn.Conv2d(32, 24, 1, stride=2), torch.nn.Flatten(),
        torch.nn.Linear(24 * 16, 70),
    ).eval()  # fmt: skip
    graph = capture(model, (torch.randn(2, 20, 8, 8),))
    step = ("quantise", {"scheme": scheme})
    rows = stored_layers(graph, apply_recipe(graph, [step])[0], (step,), {})
    weights = get_scheme(scheme).weights
    # An int8 kernel ranges to the largest magnitude; the 4-bit ones take the codes of the format.
    chooser = "max" if scheme == "poc-w8a8" else None
    for row, layer in zip(rows, (model[0], model[1], model[3]), strict=True):
        assert (row.format, row.runs) == (weights.name, "kernel")
        weight = cast("torch.Tensor", layer.weight).detach()
        plain = convolution_rows(weight) if weight.dim() == 4 else weight
        noise = (plain - encode(plain, weights, chooser=chooser).decode()).double().square().sum()
        expected = 10 * float(torch.log10(weight.double().square().sum() / noise))
        assert row.sqnr_db == pytest.approx(expected, abs=1e-3)
