"""Every pass, alone and all in a row, on every architecture, at two sizes."""

import pytest
from by_hand import signal_to_noise
from torch.utils import _pytree as pytree

import architectures
from taut.graph import Graph, Interpreter, infer_types
from taut.transform import PASSES

_WIDE = {"minimum_features": 1}
_OPTIONS = {
    **dict.fromkeys(("quantise", "int8_linear", "w4a8_linear", "w4a4_linear", "quantised_embedding"), _WIDE),
    "int8_convolution": {"minimum_channels": 1},
    "w4a8_convolution": {"minimum_channels": 1},
}
_FOUR_BITS = ("quantise", "w4a8_linear", "w4a4_linear", "w4a8_convolution", "quantised_embedding")

_SIZES = 2  # the captured one and another


def _check(before: Graph, after: Graph, name: str, quality: float) -> None:
    for size in architectures.ARCHITECTURES[name].sizes[:_SIZES]:
        inputs = architectures.example(name, size)
        expected = pytree.tree_leaves(Interpreter(before)(*inputs))
        got = pytree.tree_leaves(Interpreter(after)(*inputs))
        for left, right in zip(expected, got, strict=True):
            assert (left.dtype, left.shape) == (right.dtype, right.shape)
            assert left.dim() != 4 or left.is_contiguous() == right.is_contiguous()
            if left.is_floating_point() and left.numel():
                assert signal_to_noise(left, right) > quality


def _named(name: str) -> object:
    # Attention has its own tests on a smaller encoder in the fast tier.
    return pytest.param(name, marks=pytest.mark.slow) if name in ("encoder", "attention") else name


@pytest.mark.parametrize("name", [_named(name) for name in sorted(architectures.ARCHITECTURES)])
def test_passes_hold_on(name: str) -> None:
    graph = architectures.captured(name)
    stacked, quality = graph, 100.0
    for entry in PASSES.values():
        options = _OPTIONS.get(entry.name, {})
        floor = 5.0 if entry.name in _FOUR_BITS else 20.0 if entry.changes_numerics else 100.0
        if entry.applies(graph, **options):
            alone = entry.apply(graph, **options).graph
            _check(graph, alone, name, floor)
        if entry.name not in _FOUR_BITS and entry.applies(stacked, **options):
            stacked, quality = entry.apply(stacked, **options).graph, min(quality, floor)
    assert [node.outputs for node in infer_types(stacked).nodes] == [node.outputs for node in stacked.nodes]
    _check(graph, stacked, name, quality)
