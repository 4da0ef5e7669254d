"""Graphs written by hand, and what every transformed graph has to satisfy."""

import operator
from collections.abc import Callable
from pathlib import Path

import torch

from taut.graph import Argument, Builder, Graph, Interpreter, Ref, TensorType, load_graph, save_graph


def call(builder: Builder, op: str, *args: Argument, **kwargs: Argument) -> Ref:
    """Append an operator; its output types come from running it on tensors without data."""

    def blank(argument: Argument) -> object:
        if isinstance(argument, tuple):
            return [blank(item) for item in argument]
        if not isinstance(argument, Ref):
            return argument
        kind = builder.value_type(argument)
        assert isinstance(kind, TensorType)
        return torch.empty([int(size) for size in kind.shape], dtype=kind.dtype, device="meta")

    function = operator.attrgetter(op)(torch.ops)
    made = function(*map(blank, args), **{name: blank(value) for name, value in kwargs.items()})
    results = made if isinstance(made, (tuple, list)) else (made,)
    outputs = tuple(TensorType(tuple(item.shape), item.dtype) for item in results)
    return builder.add(op, *args, outputs=outputs, kwargs=kwargs)


def by_hand(body: Callable[..., object], *shapes: tuple[int, ...]) -> Graph:
    """A graph of float32 inputs; `body(builder, *inputs)` appends the nodes and returns the outputs."""
    builder = Builder()
    kinds = [TensorType(shape, torch.float32) for shape in shapes]
    inputs = [builder.input(f"x{index}", kind) for index, kind in enumerate(kinds)]
    return builder.finish(body(builder, *inputs))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Reproducible noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm_constants(builder: Builder, channels: int, seed: int = 7) -> tuple[Ref, Ref, Ref, Ref]:
    """Scale, shift, mean and variance of a batch norm, far from the identity."""
    gamma, beta, mean, variance = (normal(channels, seed=seed + index) for index in range(4))
    tensors = (gamma + 2, beta, mean, variance.abs() + 0.1)
    names = ("gamma", "beta", "mean", "variance")
    return tuple(  # pyright: ignore[reportReturnType]
        builder.constant(tensor, f"norm{seed}.{name}") for tensor, name in zip(tensors, names, strict=True)
    )


def batch_norm(builder: Builder, x: Ref, channels: int, *, training: bool = False, seed: int = 7) -> Ref:
    return call(
        builder, "aten.batch_norm.default", x, *norm_constants(builder, channels, seed), training, 0.1, 1e-5, False
    )


def ops(graph: Graph) -> list[str]:
    """The operators in order, without inputs and constants."""
    return [node.op for node in graph.nodes if node.op not in ("input", "constant")]


def signal_to_noise(reference: torch.Tensor, got: torch.Tensor) -> float:
    """Signal to quantisation noise ratio in decibels."""
    noise = (got.double() - reference.double()).square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / noise))


def assert_same(before: Graph, after: Graph, *inputs: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Both graphs give the same within `tolerance` of the largest value."""
    expected, got = Interpreter(before)(*inputs), Interpreter(after)(*inputs)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())


def assert_survives_storage(graph: Graph, folder: Path, *inputs: torch.Tensor) -> None:
    """Saved and loaded, the graph gives the same bits."""
    save_graph(graph, folder / "graph.json", folder / "model.safetensors")
    loaded = load_graph(folder / "graph.json", folder / "model.safetensors")
    assert torch.equal(Interpreter(loaded)(*inputs), Interpreter(graph)(*inputs))


def sentences(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and a mask that hides the second half of the first row."""
    ids = torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(batch * length))
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, (length + 1) // 2 :] = 0
    return ids, mask
