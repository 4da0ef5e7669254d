"""What a user may pass to a compiled model, and what comes back."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import taut
from taut.compile import CompiledModel, load, save
from taut.errors import ArgumentError, GraphError, GuardError

T = torch.export.Dim("T", min=1, max=16)
N = torch.export.Dim("N", min=0, max=8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8)).eval()


@pytest.fixture(scope="module")
def compiled(network: nn.Module) -> CompiledModel:
    return taut.compile(network, (torch.randn(3, 5, 4),), dynamic_shapes=({0: N, 1: T},))


def close(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_every_batch_and_length_within_the_ranges_runs(network: nn.Module, compiled: CompiledModel) -> None:
    for batch in (0, 1, 2, 8):
        for length in range(1, 17):
            x = torch.randn(batch, length, 4)
            with torch.no_grad():
                close(compiled(x), network(x))


def test_results_of_two_calls_are_apart(network: nn.Module, compiled: CompiledModel) -> None:
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    kept = compiled(first)
    compiled(second)
    with torch.no_grad():
        close(kept, network(first))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(9, 5, 4), r"input input: dimension 0 is 9.*<= 8"),
        (torch.zeros(3, 17, 4), r"input input: dimension 1 is 17.*<= 16"),
        (torch.zeros(3, 0, 4), r"input input: dimension 1 is 0.*1 <="),
        (torch.zeros(3, 5, 3), r"input: is float32 \(3, 5, 3\).*float32 \(s0, s1, 4\)"),
        (torch.zeros(3, 5, 4, dtype=torch.float64), r"input: is float64.*float32"),
        (torch.zeros(3, 5, 4, dtype=torch.int64), r"input: is int64.*float32"),
        (torch.zeros(5, 4), r"input: is float32 \(5, 4\).*\(s0, s1, 4\)"),
        ([[1.0]], r"input"),
        (3.0, r"input: is a float.*tensor"),
        ("text", r"input: is a str.*tensor"),
        (torch.zeros(3, 5, 4, requires_grad=True), r"input: requires a gradient.*detach"),
    ],
    ids=["batch", "long", "short", "width", "float64", "int64", "rank", "list", "float", "str", "gradient"],
)
def test_an_input_that_does_not_fit_is_named_with_what_was_expected(compiled: CompiledModel, x: Any, said: str) -> None:
    with pytest.raises(GuardError) as caught:
        compiled(x)
    assert re.search(said, str(caught.value), re.DOTALL)


def test_missing_unknown_and_superfluous_arguments_are_named(compiled: CompiledModel) -> None:
    x = torch.zeros(3, 5, 4)
    with pytest.raises(GuardError, match="input input is missing"):
        compiled()
    with pytest.raises(GuardError, match="got 2"):
        compiled(x, x)
    with pytest.raises(GuardError, match="other"):
        compiled(x, other=x)
    with pytest.raises(GuardError, match="twice"):
        compiled(x, input=x)


def test_keyword_arguments_are_taken(network: nn.Module, compiled: CompiledModel) -> None:
    x = torch.randn(3, 5, 4)
    with torch.no_grad():
        close(compiled(input=x), network(x))


@pytest.mark.parametrize("make", ["transposed", "sliced", "expanded", "offset", "rows", "outer"])
def test_inputs_of_any_strides_are_read(network: nn.Module, compiled: CompiledModel, make: str) -> None:
    x = {
        "transposed": torch.randn(4, 5, 3).transpose(0, 2),
        "sliced": torch.randn(6, 10, 8)[::2, ::2, ::2],
        "expanded": torch.randn(1, 5, 4).expand(3, 5, 4),
        "rows": torch.randn(3, 9, 4)[:, :5],
        "outer": torch.randn(5, 3, 4).transpose(0, 1),
        "offset": torch.randn(61)[1:].view(3, 5, 4),
    }[make]
    with torch.no_grad():
        close(compiled(x), network(x))


class Returns(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"same": x, "parts": (y.sum(), [x[0], x.t()]), "both": y + 1, "none": None, "number": 3}


def test_nested_outputs_keep_their_structure_and_are_apart_from_inputs() -> None:
    x, y = torch.randn(3, 3), torch.randn(2)
    compiled = taut.compile(Returns(), (x, y))
    found, wanted = compiled(x, y=y), Returns()(x, y)
    assert found.keys() == wanted.keys()
    assert found["none"] is None
    assert found["number"] == 3
    close(found["parts"], wanted["parts"])
    found["same"].zero_()
    found["parts"][1][1].zero_()
    close(x, wanted["same"])
    assert x.abs().sum() > 0


class Constant(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        del x
        return self.table, self.table * 2


def test_a_constant_output_is_a_copy_of_its_own() -> None:
    model = Constant()
    compiled = taut.compile(model, (torch.zeros(1),))
    first = compiled(torch.zeros(1))
    first[0].zero_()
    close(compiled(torch.ones(1)), (torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3) * 2))


def test_a_model_of_another_float_dtype_runs() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64)
    found = taut.compile(model, (x,))(x)
    with torch.no_grad():
        torch.testing.assert_close(found, model(x))


def test_a_scalar_output_of_a_scalar_input() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x

    compiled = taut.compile(Double(), (torch.tensor(1.5),))
    close(compiled(torch.tensor(2.5)), (torch.tensor(5.0), torch.tensor(2.5)))


@pytest.mark.parametrize("length", [1, 5, 16])
def test_the_mean_of_a_whole_tensor_of_any_length(length: int) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean()

    compiled = taut.compile(Mean(), (torch.randn(7, 8),), dynamic_shapes=({0: T},))
    x = torch.randn(length, 8)
    close(compiled(x), x.mean())


class Gated(nn.Module):
    """The sum lies where the second layer's result was, unless the kernel reads that after its first pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return (self.left(h).tanh() + self.right(h)).softmax(-1)


def test_an_operand_of_a_heavy_epilogue_keeps_its_memory() -> None:
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.randn(3, 8)
    with torch.no_grad():
        close(taut.compile(model, (x,))(x), model(x))


class Cut(nn.Module):
    def forward(self, x: Tensor, n: int, twice: bool) -> Tensor:
        return x[:n] * (2 if twice else n)


def test_numbers_are_those_of_the_capture() -> None:
    x = torch.randn(4, 3)
    compiled = taut.compile(Cut(), (x, 2, True))
    close(compiled(x, 2, True), Cut()(x, 2, True))
    close(compiled(x, twice=True, n=2), Cut()(x, 2, True))
    for arguments, said in (
        ((x, 3, True), "input n is 3, expected 2"),
        ((x, 2, False), "input twice is 0, expected 1"),
    ):
        with pytest.raises(GuardError, match=said):
            compiled(*arguments)


def test_a_float_is_no_argument_of_a_program() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: float) -> Tensor:
            return x * scale

    with pytest.raises(GraphError, match="argument scale is a float"):
        taut.compile(Scaled(), (torch.randn(2), 0.5))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"devices": ["left"]}, "devices"), ({"devices": {0: 1}}, "devices"), ({"tiles": "fast"}, "tiles.*cost model")],
)
def test_options_of_a_wrong_kind_are_refused(network: nn.Module, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=f"(?s){said}"):
        taut.compile(network, (torch.randn(3, 5, 4),), **options)


def test_only_compiled_models_are_saved(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"(?s)model.*compiled model"):
        save(network, tmp_path / "program")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="path of a folder"):
        load(3)  # pyright: ignore[reportArgumentType]
