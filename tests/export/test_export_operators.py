"""Operators beyond those of the architectures, one at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_runs import both, one_operator
from torch import Tensor

from taut.errors import ExportError
from taut.export import export_onnx
from taut.graph import Builder, Graph, Ref, ScalarType, TensorType

X, Y, Z = Ref(0), Ref(1), Ref(2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, B = noise(3, 4, 5), noise(3, 4, 5, seed=1)
POSITIVE = A.abs() + 0.1
WHOLE = torch.tensor([[-7, 7, -1, 0], [5, -5, 8, 3]])
DIVISOR = torch.tensor([[2, -2, 3, 5], [-3, 3, -3, 4]])
TRUTH = torch.tensor([[True, False], [True, True]])
IMAGE = noise(2, 4, 6, 8)

CASES: dict[str, tuple[str, list[Tensor], tuple[Any, ...], dict[str, Any]]] = {
    "add with a factor": ("add.Tensor", [A, B], (X, Y), {"alpha": 2}),
    "add of whole and real numbers": ("add.Tensor", [WHOLE, noise(2, 4)], (X, Y), {}),
    "subtract a number": ("sub.Tensor", [A], (X, 3), {}),
    "reverse subtract": ("rsub.Scalar", [A], (X, 1.5), {}),
    "multiply truth values": ("mul.Tensor", [TRUTH, TRUTH.T.contiguous()], (X, Y), {}),
    "divide whole numbers": ("div.Tensor", [WHOLE, DIVISOR], (X, Y), {}),
    "divide and round down": ("div.Tensor_mode", [WHOLE, DIVISOR], (X, Y), {"rounding_mode": "floor"}),
    "divide and cut": ("div.Tensor_mode", [WHOLE, DIVISOR], (X, Y), {"rounding_mode": "trunc"}),
    "divide and cut real numbers": ("div.Tensor_mode", [A, B], (X, Y), {"rounding_mode": "trunc"}),
    "remainder": ("remainder.Tensor", [WHOLE, DIVISOR], (X, Y), {}),
    "remainder of real numbers": ("remainder.Scalar", [A], (X, 0.7), {}),
    "power": ("pow.Tensor_Scalar", [POSITIVE], (X, 2.5), {}),
    "power of a number": ("pow.Scalar", [A], (2.0, X), {}),
    "equal": ("eq.Tensor", [WHOLE, DIVISOR], (X, Y), {}),
    "unequal": ("ne.Scalar", [WHOLE], (X, 7), {}),
    "truth values unequal": ("ne.Tensor", [TRUTH, TRUTH.T.contiguous()], (X, Y), {}),
    "whole numbers against a real one": ("lt.Scalar", [WHOLE], (X, 2.5), {}),
    "bitwise and": ("bitwise_and.Tensor", [WHOLE, DIVISOR], (X, Y), {}),
    "bitwise not of truth values": ("bitwise_not.default", [TRUTH], (X,), {}),
    "logical or": ("logical_or.default", [WHOLE, DIVISOR], (X, Y), {}),
    "where with numbers": ("where.ScalarOther", [TRUTH, noise(2, 2)], (X, Y, 2), {}),
    "clamp on both sides": ("clamp.default", [A], (X, -0.5, 0.5), {}),
    "clamp by tensors": ("clamp.Tensor", [A, B], (X, Y), {}),
    "clamp from above": ("clamp_max.default", [A], (X, 0.1), {}),
    "gelu by tanh": ("gelu.default", [A], (X,), {"approximate": "tanh"}),
    "softplus": ("softplus.default", [A], (X, 2), {}),
    "log sigmoid": ("log_sigmoid.default", [A], (X,), {}),
    "hard sigmoid": ("hardsigmoid.default", [A * 4], (X,), {}),
    "hard tanh": ("hardtanh.default", [A], (X, -0.3, 0.4), {}),
    "relu up to six": ("relu6.default", [A * 6], (X,), {}),
    "selu": ("selu.default", [A], (X,), {}),
    "mish": ("mish.default", [A], (X,), {}),
    "a slope a channel": ("_prelu_kernel.default", [IMAGE, noise(1, 4, 1, 1)], (X, Y), {}),
    "reciprocal root": ("rsqrt.default", [POSITIVE], (X,), {}),
    "logarithm of one more": ("log1p.default", [POSITIVE], (X,), {}),
    "exponential less one": ("expm1.default", [A], (X,), {}),
    "binary logarithm": ("log2.default", [POSITIVE], (X,), {}),
    "halves round to even": ("round.default", [torch.tensor([0.5, 1.5, -2.5, 3.2])], (X,), {}),
    "sine of whole numbers": ("sin.default", [WHOLE], (X,), {}),
    "finite": ("isfinite.default", [torch.tensor([1.0, math.inf, math.nan])], (X,), {}),
    "sum of truth values": ("sum.dim_IntList", [TRUTH, ], (X, [1]), {}),
    "sum of everything": ("sum.default", [A], (X,), {}),
    "mean with kept dimensions": ("mean.dim", [A], (X, (0, -1), True), {}),
    "largest and where": ("max.dim", [A], (X, 1), {}),
    "least of everything": ("min.default", [A], (X,), {}),
    "any": ("any.dim", [A > 0.5], (X, -1), {}),
    "all": ("all.default", [A > -9], (X,), {}),
    "position of the largest": ("argmax.default", [A], (X,), {}),
    "position in a dimension": ("argmin.default", [A], (X, 2, True), {}),
    "norm of order three": ("linalg_vector_norm.default", [A], (X, 3, (1,)), {}),
    "norm of the largest": ("linalg_vector_norm.default", [A], (X, math.inf, (1,)), {}),
    "variance": ("var.correction", [A], (X, (1, 2)), {"correction": 0}),
    "deviation": ("std.correction", [A], (X, (0,)), {"keepdim": True}),
    "log of a sum of exponentials": ("logsumexp.default", [A], (X, (1,)), {}),
    "cumulative sum": ("cumsum.default", [A], (X, 1), {}),
    "the largest three": ("topk.default", [A], (X, 3, 1), {}),
    "sort": ("sort.default", [A], (X, 1, True), {}),
    "move a dimension": ("movedim.int", [A], (X, 0, 2), {}),
    "flatten in the middle": ("flatten.using_ints", [noise(2, 3, 4, 5)], (X, 1, 2), {}),
    "unflatten": ("unflatten.int", [noise(2, 12)], (X, 1, (3, -1)), {}),
    "repeat": ("repeat.default", [noise(2, 3)], (X, (2, 1, 3)), {}),
    "stack": ("stack.default", [A, B], ((X, Y), -1), {}),
    "split": ("split.Tensor", [noise(7, 2)], (X, 3), {}),
    "split unevenly": ("split_with_sizes.default", [noise(2, 7)], (X, (3, 4), 1), {}),
    "flip": ("flip.default", [A], (X, (0, 2)), {}),
    "roll": ("roll.default", [A], (X, (1, -2), (0, 2)), {}),
    "pad by the edge": ("pad.default", [IMAGE], (X, (1, 2, 0, 1), "replicate"), {}),
    "pad by reflection": ("pad.default", [IMAGE], (X, (1, 2, 3, 0), "reflect"), {}),
    "crop": ("constant_pad_nd.default", [IMAGE], (X, (-1, 0, 2, -1), 3.0), {}),
    "triangle": ("tril.default", [noise(4, 4)], (X, -1), {}),
    "filled like": ("full_like.default", [A], (X, 2.5), {}),
    "select from behind": ("select.int", [A], (X, 1, -2), {}),
    "every second": ("slice.Tensor", [A], (X, 2, 1, 5, 2), {}),
    "narrow": ("narrow.default", [A], (X, 1, 1, 2), {}),
    "squeeze everything": ("squeeze.default", [noise(1, 3, 1)], (X,), {}),
    "gather": ("gather.default", [A, torch.zeros(3, 2, 5, dtype=torch.int64)], (X, 1, Y), {}),
    "scatter": ("scatter.src", [A, torch.ones(3, 1, 5, dtype=torch.int64), B], (X, 1, Y, Z), {}),
    "index by a mask": ("index.Tensor", [A, torch.tensor([True, False, True])], (X, (Y,)), {}),
    "index two dimensions": (
        "index.Tensor", [A, torch.tensor([[0], [2]]), torch.tensor([1, 3])], (X, (Y, Z)), {}
    ),
    "one hot": ("one_hot.default", [torch.tensor([0, 2, 1])], (X, 4), {}),
    "add a product": ("addmm.default", [noise(4), noise(2, 3), noise(3, 4)], (X, Y, Z), {"beta": 0.5, "alpha": 2}),
    "add products": ("baddbmm.default", [noise(2, 3, 3), A[:2, :3], B[:2, :3].mT.contiguous()], (X, Y, Z), {"beta": 2}),
    "matrix by vector": ("mv.default", [noise(3, 4), noise(4)], (X, Y), {}),
    "attention with a scale": (
        "scaled_dot_product_attention.default", [noise(2, 3, 4), noise(2, 5, 4), noise(2, 5, 6)], (X, Y, Z),
        {"scale": 0.3},
    ),
    "attention with an additive mask": (
        "scaled_dot_product_attention.default",
        [noise(2, 3, 4), noise(2, 5, 4), noise(2, 5, 6), torch.zeros(3, 5).index_fill(0, torch.tensor(1), -math.inf)],
        (X, Y, Z, Ref(3)), {},
    ),
    "attention where a row sees nothing": (
        "scaled_dot_product_attention.default",
        [noise(2, 3, 4), noise(2, 5, 4), noise(2, 5, 6), torch.ones(3, 5).index_fill(0, torch.tensor(2), 0).bool()],
        (X, Y, Z, Ref(3)), {},
    ),
    "convolution of one dimension": ("conv1d.default", [noise(2, 3, 9), noise(4, 3, 2)], (X, Y, None, (2,), (1,)), {}),
    "convolution of three": ("conv3d.default", [noise(1, 2, 4, 5, 6), noise(3, 2, 2, 2, 2)], (X, Y), {}),
    "an even kernel, same size": ("conv2d.padding", [IMAGE, noise(5, 4, 2, 4)], (X, Y, None, (1, 1), "same"), {}),
    "average pool": ("avg_pool2d.default", [IMAGE], (X, 2, 2, 1, False, False), {}),
    "average pool, rounded up": ("avg_pool2d.default", [IMAGE], (X, (3, 3), (2, 2), 0, True), {}),
    "pool of one dimension": ("max_pool1d.default", [noise(2, 3, 9)], (X, 3), {}),
    "adaptive pool": ("adaptive_avg_pool2d.default", [IMAGE], (X, (3, 2)), {}),
    "nearest pixels": ("upsample_nearest2d.vec", [IMAGE], (X, (9, 12), None), {}),
    "corners aligned": ("upsample_bilinear2d.vec", [IMAGE], (X, (9, 12), True, None), {}),
    "cubic": ("upsample_bicubic2d.vec", [IMAGE], (X, None, False, (2.0, 1.5)), {}),
    "layer norm without weights": ("layer_norm.default", [A], (X, (4, 5)), {}),
    "instance norm": ("instance_norm.default", [IMAGE], (X, None, None, None, None, True, 0.1, 1e-5, False), {}),
    "root mean square norm": ("rms_norm.default", [A, noise(5)], (X, (5,), Y, 1e-6), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_the_same(case: str, tmp_path: Path) -> None:
    op, inputs, arguments, keywords = CASES[case]
    lists = tuple(tuple(item) if isinstance(item, list) else item for item in arguments)
    made, wanted = both(one_operator(f"aten.{op}", inputs, *lists, **keywords), tmp_path, *inputs)
    assert [(one.dtype, one.shape) for one in made] == [(one.dtype, one.shape) for one in wanted]
    torch.testing.assert_close(made, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "floordiv", "mod", "max", "min"])
def test_arithmetic_on_sizes(name: str, tmp_path: Path) -> None:
    """Each result, for operands of both signs, becomes a tensor."""
    builder = Builder()
    number, real = ScalarType("int"), TensorType((), torch.int64)
    x, y = (builder.input(key, real) for key in "xy")
    left, right = (builder.add("aten.item.default", value, outputs=number) for value in (x, y))
    made = builder.add(f"sym.{name}", left, right, outputs=number)
    graph = builder.finish(builder.add("aten.add.Tensor", x, made, outputs=real))
    for a, b in ((7, 3), (-7, 3), (7, -3), (-7, -3)):
        got, wanted = both(graph, tmp_path, torch.tensor(a), torch.tensor(b))
        assert got == wanted


REFUSED = {
    "scaled_dot_product_attention.default": (
        [noise(1, 2, 3, 4), noise(1, 1, 3, 4), noise(1, 1, 3, 4)], (X, Y, Z), {"enable_gqa": True}, "grouped"
    ),
    "adaptive_avg_pool2d.default": ([IMAGE], (X, (4, 3)), {}, "unequal"),
    "native_dropout.default": ([A], (X, 0.5, False), {}, "cannot express"),
    "batch_norm.default": ([IMAGE], (X, None, None, None, None, True, 0.1, 1e-5, False), {}, "statistics of the batch"),
}  # fmt: skip


@pytest.mark.parametrize("op", REFUSED)
def test_what_does_not_map_is_refused_with_operator_module_and_source(op: str, tmp_path: Path) -> None:
    inputs, arguments, keywords, reason = REFUSED[op]
    graph = one_operator(f"aten.{op}", inputs, *arguments, **keywords)
    with pytest.raises(ExportError, match=rf"^aten\.{op} at block\.layer \(model\.py:7\): .*{reason}"):
        export_onnx(graph, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_control_flow_without_counterpart_is_refused(tmp_path: Path) -> None:
    region = Builder()
    body = region.finish((region.input("x", TensorType((2,), torch.float32)),))
    builder = Builder()
    x = builder.input("x", TensorType((3, 2), torch.float32))
    kind = TensorType((3, 2), torch.float32)
    graph = builder.finish(builder.add("map", (x,), (), outputs=kind, regions=(body,), module_path="loop"))
    assert isinstance(graph, Graph)
    with pytest.raises(ExportError, match="map at loop"):
        export_onnx(graph, tmp_path / "model.onnx")
