"""Lowering: blocks mean what the model computes, and the fusion that a user would expect happens."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from block_reference import run
from torch import Tensor, nn

import taut
from taut.codegen import Recipe
from taut.codegen._depthwise import inputs_before
from taut.compile._block import CallStep, CopyStep, FallbackStep, KernelStep
from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.graph import SymbolRange, capture

T = torch.export.Dim("T", min=4, max=512)
N = torch.export.Dim("N", min=2, max=64)


def lowered(model: nn.Module, args: tuple[Any, ...], dynamic: Any = None, *others: tuple[Any, ...]) -> Lowered:
    """Lower a model, and compare the blocks with it on the example and on other inputs."""
    model = model.eval()
    made = lower(prepare(capture(model, args, dynamic_shapes=dynamic)))
    for inputs in (args, *others):
        expected = model(*inputs)
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        for found, wanted in zip(run(made.blocks, inputs), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    return made


def kinds(made: Lowered) -> Counter[str]:
    """What the steps of all functions are."""
    names = []
    for step in (step for block in made.blocks for step in block.steps):
        if isinstance(step, KernelStep):
            names.append(step.kernel.template if isinstance(step.kernel, Recipe) else step.kernel)
        elif isinstance(step, FallbackStep):
            names += [node.op for node in step.graph.nodes if node.op != "input"]
        else:
            names.append({CopyStep: "copy", CallStep: "call"}.get(type(step), type(step).__name__))
    return Counter(names)


def test_an_encoder_layer_is_seven_kernels_and_no_copy() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")
    made = lowered(nn.TransformerEncoder(layer, 1), (torch.randn(1, 8, 64),), ({1: T},), (torch.randn(1, 19, 64),))
    assert kinds(made) == {"linear": 4, "attention": 1, "map": 2}


def test_the_same_with_a_batch_has_no_copy_either() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")
    made = lowered(
        nn.TransformerEncoder(layer, 1), (torch.randn(3, 8, 64),), ({0: N, 1: T},), (torch.randn(2, 19, 64),)
    )
    assert kinds(made) == {"linear": 4, "attention": 1, "map": 2}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        y = torch.relu(self.norm(self.first(x)))
        return torch.relu(self.second(y) + x)


def test_a_residual_block_is_two_convolutions_after_the_layout_change() -> None:
    made = lowered(Residual(), (torch.randn(2, 16, 8, 8),), ({0: N},), (torch.randn(5, 16, 8, 8),))
    assert kinds(made) == {"map": 2, "convolution": 2}


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem(x))
        x = nn.functional.hardswish(self.depthwise(x))
        x = self.pointwise(x)
        return self.classify(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_a_mobile_network_needs_nothing_between_its_kernels() -> None:
    made = lowered(Mobile(), (torch.randn(2, 3, 16, 16),), ({0: N},), (torch.randn(3, 3, 16, 16),))
    assert kinds(made) == {"convolution": 2, "depthwise": 1, "pool": 1, "linear": 1}


class Sums(nn.Module):
    """Depthwise convolutions of functions of images that others read too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(20, 20, size, padding=size // 2, groups=20) for size in (3, 5, 3, 3))
        self.scale = nn.Parameter(torch.randn(20, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth = self.layers
        shared = torch.relu(x)
        a, b = first(shared), second(shared)
        return third(torch.relu(a + b * self.scale)) + fourth(torch.minimum(a, b))


@pytest.mark.parametrize(
    ("dynamic", "other", "inputs"),
    [
        (({0: N},), torch.randn(3, 20, 6, 7), [1, 1, 2, 3]),
        (({0: N, 2: torch.export.Dim("H", min=2)},), torch.randn(3, 20, 9, 7), [1, 1, 1, 1]),
    ],
)
def test_what_only_depthwise_convolutions_read_is_computed_in_them(
    dynamic: Any, other: Tensor, inputs: list[int]
) -> None:
    made = lowered(Sums(), (torch.randn(2, 20, 6, 7),), dynamic, (other,))
    recipes = [step.kernel for step in made.blocks[0].steps if isinstance(step, KernelStep)]
    found = [
        inputs_before(recipe) for recipe in recipes if isinstance(recipe, Recipe) and recipe.template == "depthwise"
    ]
    assert sorted(count for count, _ in found) == inputs
    assert all(bool(before) == (inputs[-1] > 1) for _, before in found)


class Kept(nn.Module):
    """A function of an image that is returned, and one that takes long: both stay in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(20, 20, 3, padding=1, groups=20) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        returned = torch.relu(x)
        return self.layers[0](returned), returned, self.layers[1](torch.tanh(x))


def test_what_others_read_and_what_takes_long_stays_in_memory() -> None:
    made = lowered(Kept(), (torch.randn(2, 20, 6, 7),))
    recipes = [step.kernel for step in made.blocks[0].steps if isinstance(step, KernelStep)]
    assert not any(inputs_before(recipe)[1] for recipe in recipes if isinstance(recipe, Recipe))


class Branches(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        chosen = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a * 2, (x,))
        _, looped = torch._higher_order_ops.while_loop(  # pyright: ignore
            lambda i, a: i < 3, lambda i, a: (i + 1, a * 1.5 + 0.1), (torch.tensor(0), x)
        )
        return chosen, looped, (x > 0).nonzero()


def test_control_flow_and_sizes_that_depend_on_data() -> None:
    made = lowered(
        Branches(), (torch.randn(4, 6),), ({0: T},), (torch.rand(9, 6) + 1,), (-torch.rand(7, 6),), (torch.zeros(5, 6),)
    )
    assert kinds(made)["call"] == 2
    assert kinds(made)["nonzero"] == 1


class Masks(nn.Module):
    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        mask = (ids > 3).float().unsqueeze(-1)
        mean = (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        scores = (x @ x.transpose(1, 2)).masked_fill(ids[:, None, :] == 0, float("-inf")).softmax(-1)
        return mean, scores @ x, torch.where(ids > 2, ids, -ids), x[:, 1:, ::2], x[:, -1], torch.cat([x, x * 2], 2)


def test_masks_products_slices_and_concatenation() -> None:
    ids = [torch.randint(1, 6, (2, length)) for length in (7, 12)]
    made = lowered(Masks(), (torch.randn(2, 7, 6), ids[0]), ({1: T}, {1: T}), (torch.randn(2, 12, 6), ids[1]))
    assert "aten" not in " ".join(kinds(made))


def test_what_has_no_kernel_runs_on_aten() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cumsum(x, 1) * 2, torch.linalg.vector_norm(x, dim=-1)

    made = lowered(Odd(), (torch.randn(2, 7, 6),), ({1: T},), (torch.randn(2, 9, 6),))
    assert kinds(made)["aten.cumsum.default"] == 1


def test_avoided_nodes_run_on_aten() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    graph = capture(model, (torch.randn(2, 8),))
    first = lower(graph)
    key = next(
        step.kernel.key
        for step in first.blocks[0].steps
        if isinstance(step, KernelStep) and isinstance(step.kernel, Recipe)
    )
    second = lower(graph, first.nodes_of(frozenset({key})))
    assert kinds(second) == {"aten.linear.default": 1, "aten.relu.default": 1, "linear": 1}
    x = torch.randn(2, 8)
    torch.testing.assert_close(run(second.blocks, (x,))[0], model(x))


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_batch_of_nothing_is_lowered_like_any_other(size: int) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8)).eval()
    made = lower(capture(model, (torch.randn(4, 8),), dynamic_shapes=({0: N},)))
    x = torch.randn(size, 8)
    torch.testing.assert_close(run(made.blocks, (x,))[0], model(x))


class Moments(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pair, same = torch.var_mean(x, -1), torch.std_mean(x, (1, 2), correction=0, keepdim=True)
        return x.var(-1), x.var((1, 2), unbiased=False), x.std(-1, keepdim=True), x.var(1, correction=0.5), *pair, *same


def test_variances_are_reductions() -> None:
    made = lowered(Moments(), (torch.randn(4, 8, 5),), ({0: N},), (torch.randn(9, 8, 5) + 100,))
    assert kinds(made) == {"map": 8}


def test_a_variance_of_too_few_elements_is_that_of_aten() -> None:
    class Along(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.std(0)

    assert kinds(lowered(Along(), (torch.randn(4, 8),), ({0: torch.export.Dim("n", min=3)},))) == {"map": 1}
    graph = capture(Along(), (torch.randn(4, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    short = dataclasses.replace(graph, symbols={name: SymbolRange(1, None) for name in graph.symbols})
    assert kinds(lower(short)) == {"aten.std.dim": 1}


class Indexing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(10, 3))
        self.register_buffer("places", torch.arange(12).reshape(3, 4) % 10 - 3)

    def forward(self, x: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        table, places = self.get_buffer("table"), self.get_buffer("places")
        return x[rows], table[rows], table[places], x[places.abs() % 3] + 1


def test_indexing_rows_is_a_lookup() -> None:
    example = (torch.randn(6, 2, 5), torch.tensor([[0, -1], [5, 3]]))
    made = lowered(Indexing(), example, ({}, {0: N}), (torch.randn(6, 2, 5), torch.tensor([[-6, 2]] * 5)))
    assert "aten.index.Tensor" not in kinds(made)
    assert kinds(made)["embedding"] == 3


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.a(x).relu(), lambda x: self.b(x), (x,))


def test_layers_inside_branches_have_their_weights_packed() -> None:
    x = torch.randn(4, 8)
    made = lowered(Layered(), (x,), ({0: N},), (x - 10,), (x + 10,))
    assert not made.program.fallbacks
    assert kinds(made)["linear"] == 3


def test_a_softmax_over_one_element_passes_nan() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(1)

    x = torch.tensor([[[1.0, float("nan"), float("inf")]]])
    torch.testing.assert_close(taut.compile(Single(), (x,))(x), x.softmax(1), equal_nan=True)
