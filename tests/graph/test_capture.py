"""Capture: what it accepts, what it leaves alone, and how it explains a refusal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from architectures import build, example
from taut.errors import ArgumentError, ExportError, GuardError
from taut.graph import Graph, Interpreter, bind_sizes, capture, format_graph, structural_hash

X = torch.randn(6, 8)
ROWS = Dim("rows", min=2, max=16)


class PythonLoop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x[0]
        for row in range(1, x.shape[0]):
            total = total * 0.5 + x[row]
        return total


class DataBranch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Foreign(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + 1)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


class Overwrites(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1) * 2


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("weights")


class Strided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x, (2, 2), (1, 2))


class Result:
    def __init__(self, y: torch.Tensor) -> None:
        self.y = y


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PythonLoop(), r"dimension rows was requested dynamic.* fixes it to 6\nfix: a Python loop"),
        (DataBranch(), r"test_capture.py:\d+: Could not guard .*\nfix: .*torch.cond"),
        (Foreign(), r"test_capture.py:\d+: .*numpy"),
        (Counter(), r"writes to its own calls\n.*\nfix: take the state as an argument"),
        (Overwrites(), r"writes to its argument x\nfix: clone"),
        (Raises(), r"test_capture.py:\d+: 'weights'"),
        (Strided(), r"calls aten.as_strided.default at test_capture.py:\d+, which a graph cannot hold"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_refusal_names_the_place_and_a_way_out(
    model: nn.Module, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=message):
        capture(model, (X.clone(),), dynamic_shapes=({0: ROWS},))
    assert capsys.readouterr().err == ""


def test_an_error_of_another_dimension_names_it() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.ones(6, 1)

    with pytest.raises(ExportError, match="dimension 0 of x was requested dynamic"):
        capture(Fixed(), (X,), dynamic_shapes=({0: Dim.DYNAMIC},))


@pytest.mark.parametrize(
    ("model", "args", "kwargs", "name"),
    [
        (lambda x: x, (X,), None, "model: got 'function'"),
        (nn.ReLU(), X, None, "args: got 'Tensor'"),
        (nn.ReLU(), ("text",), None, r"args\[0\]: got 'text'"),
        (nn.ReLU(), ([X, {"a": object}],), None, r"args\[0\]\[1\]\['a'\]"),
        (nn.ReLU(), (X,), {"mode": "max"}, r"kwargs\['mode'\]: got 'max'"),
    ],
)
def test_wrong_arguments_are_named(model: Any, args: Any, kwargs: Any, name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        capture(model, args, kwargs)


def test_a_dimension_that_does_not_exist_is_named() -> None:
    with pytest.raises(ArgumentError, match="dimensions of input, which has 2"):
        capture(nn.ReLU(), (X,), dynamic_shapes=({7: Dim.AUTO},))


def test_dynamic_dimensions_may_be_given_in_every_form_of_torch_export() -> None:
    for shapes in (({0: ROWS},), {"input": {0: ROWS}}, ((ROWS, None),), [{0: Dim.DYNAMIC}], ({0: Dim.AUTO},)):
        graph = capture(nn.ReLU(), (X,), dynamic_shapes=shapes)
        assert bind_sizes(graph, torch.ones(9, 8)) == {"s0": 9}
        assert graph.symbols["s0"].lower == 2


def test_a_silently_fixed_dimension_is_noted() -> None:
    class Fixes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] == 6 else x

    graph = capture(Fixes(), (X,), dynamic_shapes=({0: Dim.AUTO},))
    assert "note: x dimension 0 was requested dynamic; tracing fixed it to 6" in format_graph(graph)
    assert graph.symbols == {}


@pytest.mark.parametrize("rows", [Dim("rows"), Dim("rows", min=1, max=9)], ids=["from 0", "from 1"])
def test_sizes_that_tracing_does_not_cover_are_refused_rather_than_computed_wrongly(rows: Any) -> None:
    class One(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.shape[0] == 1 else x * 2

    graph = capture(One(), (X,), dynamic_shapes=({0: rows},))
    assert "note: s0 was requested from" in format_graph(graph)
    torch.testing.assert_close(Interpreter(graph)(X[:2]), X[:2] * 2)
    for size in (0, 1):
        with pytest.raises(GuardError, match=f"dimension 0 is {size}\\nexpected: 2 <= s0"):
            Interpreter(graph)(X[:size])


def test_a_model_in_training_mode_is_captured_in_evaluation_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    model[0].eval()
    graph = capture(model, (X,))
    assert [module.training for module in model.modules()] == [True, False, True, True]
    assert torch.equal(model[1].running_mean, torch.zeros(8))  # pyright: ignore
    torch.testing.assert_close(Interpreter(graph)(X), model.eval()(X))


def test_no_operations_are_dropped_and_normalisation_has_one_form() -> None:
    class NoOps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.dropout(self.norm(x).detach().clone(), 0.3, training=self.training)
            return nn.functional.alpha_dropout(y.view(2, -1), training=False)

    x = torch.randn(2, 3, 4, 4)
    program = torch.export.export(NoOps().eval(), (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        core = program.run_decompositions()
    for source, args in ((NoOps(), (x,)), (core, ())):
        ops = [node.op for node in capture(source, args).nodes if node.op.startswith("aten.")]
        assert ops == ["aten.batch_norm.default", "aten.reshape.default"]


def test_a_norm_without_running_statistics_takes_those_of_the_batch() -> None:
    norm, x = nn.BatchNorm2d(3, track_running_stats=False), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(Interpreter(capture(norm, (x,)))(x), norm(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["attention", "detector"])
def test_an_exported_program_gives_the_same_graph_as_its_module(name: str, captured: Callable[[str], Graph]) -> None:
    from architectures import ARCHITECTURES

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ARCHITECTURES[name].dynamic_shapes
        program = torch.export.export(build(name), example(name), dynamic_shapes=shapes)
        stream = io.BytesIO()
        torch.export.save(program, stream)
        stream.seek(0)
        loaded = torch.export.load(stream)
    assert structural_hash(capture(loaded)) == structural_hash(captured(name))


def test_guards_of_tracing_are_kept_also_through_a_file() -> None:
    class Folds(nn.Module):
        def forward(self, rows: list[torch.Tensor], *rest: torch.Tensor) -> torch.Tensor:
            total = rows[0].unflatten(0, (-1, 4)).sum() + rest[0].sum()
            return total * 2 if rows[0].shape[0] > rest[0].shape[0] else total

    shapes = ([{0: Dim.DYNAMIC}], ({0: Dim.DYNAMIC},))
    program = torch.export.export(Folds(), ([torch.randn(8)], torch.randn(5)), dynamic_shapes=shapes)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, stream)
        stream.seek(0)
        loaded = torch.export.load(stream)
    for graph in (capture(program), capture(loaded)):
        run = Interpreter(graph)
        rows, rest = [torch.randn(12)], torch.randn(3)
        torch.testing.assert_close(run(rows, rest), Folds()(rows, rest))
        with pytest.raises(GuardError, match=r"Mod\(s0, 4\)"):
            run([torch.randn(10)], rest)
        with pytest.raises(GuardError, match="s0 > s1"):
            run([torch.randn(8)], torch.randn(9))


def test_an_output_class_that_a_graph_cannot_give_is_named() -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return Result(x + 1)

    with pytest.raises(ExportError, match="Result"):
        capture(Wrapped(), (X,))


def test_a_number_may_be_dynamic() -> None:
    class Head(nn.Module):
        def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
            return x[:count] * count

    run = Interpreter(capture(Head(), (X, 3), dynamic_shapes=(None, Dim.DYNAMIC)))
    torch.testing.assert_close(run(X, 5), X[:5] * 5)


def test_control_flow_becomes_regions() -> None:
    from torch._higher_order_ops import map as higher_order_map
    from torch._higher_order_ops import scan

    class Scan(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return scan(lambda carry, row: (carry + row, carry * row), x[0].clone(), x)

    class Map(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return higher_order_map(lambda row, other: row.sin() + other, x, x[0].clone())  # pyright: ignore

    for model, op in ((Scan(), "scan"), (Map(), "map")):
        graph = capture(model, (X,), dynamic_shapes=({0: ROWS},))
        (node,) = [node for node in graph.nodes if node.regions]
        assert (node.op, len(node.regions)) == (op, 1)
        for count in (2, 11):
            x = torch.randn(count, 8)
            torch.testing.assert_close(Interpreter(graph)(x), model(x))


def test_control_flow_that_a_graph_cannot_hold_is_named() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Flex(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return flex_attention(x, x, x)

    with warnings.catch_warnings(), pytest.raises(ExportError, match=r"flex_attention"):
        warnings.simplefilter("ignore")
        capture(Flex(), (torch.randn(1, 1, 16, 16),))
