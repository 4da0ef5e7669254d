"""A model of costs may choose the tiles; whatever it chooses, results are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from block_reference import run
from torch import nn

import taut
from taut.codegen import Recipe, block_of, build, linear_recipe, pack_linear, tilings
from taut.codegen._call import Kernel
from taut.compile import load, save
from taut.compile._block import KernelStep
from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.cost import Prediction
from taut.graph import Dim, Graph, Interpreter, TensorType, capture


class Preferring:
    """Finds kernels the faster the closer their block is to a size."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.asked: list[tuple[str, tuple[Dim, ...], tuple[Dim, ...]]] = []

    def predict(self, graph: Graph, sizes: Mapping[str, int], *, threads: int) -> Prediction:
        assert not sizes and threads == 1
        node = graph.nodes[-1]
        kinds = [kind for kind in (*map(graph.value_type, node.inputs), node.type) if isinstance(kind, TensorType)]
        x, weights, output = (kind.shape for kind in kinds)
        self.asked.append((node.op, x, output))
        distance = abs(int(weights[-1]) - self.block)
        return Prediction((0.0, 0.0, float(distance)), distance, "modelled", "preferring", (None,) * 3)


@pytest.fixture(scope="module")
def network() -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(8, 40, 3, padding=1), nn.GELU(), nn.Flatten(2), nn.Linear(36, 90), nn.Tanh())
    return prepare(
        capture(layers.eval(), (torch.randn(2, 8, 6, 6),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    )


def blocks_of(lowered: Lowered) -> list[int]:
    steps = [step for step in lowered.blocks[0].steps if isinstance(step, KernelStep)]
    recipes = [step.kernel for step in steps if isinstance(step.kernel, Recipe)]
    return [block_of(recipe) for recipe in recipes if recipe.template in ("convolution", "linear")]


@pytest.mark.parametrize(("wanted", "chosen"), [(16, [16, 16]), (48, [48, 48]), (1000, [48, 96])])
def test_the_tile_predicted_to_take_least_is_taken(network: Graph, wanted: int, chosen: list[int]) -> None:
    model = Preferring(wanted)
    lowered = lower(network, tiles=model)
    assert blocks_of(lowered) == chosen
    assert ("taut.kernel.convolution", (49, 6, 6, 8), (49, 6, 6, 40)) in model.asked
    assert ("taut.kernel.linear", (49 * 40, 36), (49 * 40, 90)) in model.asked
    x = torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(run(lowered.blocks, (x,))[0], Interpreter(network)(x), rtol=1e-4, atol=1e-5)


def test_without_a_difference_the_analytic_rule_decides(network: Graph) -> None:
    class Indifferent(Preferring):
        def predict(self, graph: Graph, sizes: Mapping[str, int], *, threads: int) -> Prediction:
            return Prediction((0.0,) * 3, 0.0, "modelled", "indifferent", (None,) * 3)

    assert blocks_of(lower(network, tiles=Indifferent(0))) == blocks_of(lower(network))


def test_a_program_holds_its_tiles(network: Graph, tmp_path: Path) -> None:
    compiled = taut.compile(network, tiles=Preferring(16))
    loaded = load(save(compiled, tmp_path / "program"))
    assert blocks_of(compiled.lowered) == [16, 16]
    x = torch.randn(5, 8, 6, 6)
    for program in (compiled, loaded):
        torch.testing.assert_close(program(x), Interpreter(network)(x), rtol=1e-4, atol=1e-5)


def test_every_tiling_computes_the_same() -> None:
    recipes = tilings(linear_recipe(20, 90, rows=13))
    assert sorted(map(block_of, recipes)) == [16, 32, 48, 64, 80, 96]
    built = build(recipes)
    x, weight = torch.randn(13, 20), torch.randn(90, 20)
    for recipe in recipes:
        y = torch.empty(13, 90)
        Kernel(built, recipe)(x.numpy(), pack_linear(weight.numpy(), block_of(recipe)), y.numpy())
        torch.testing.assert_close(y, x @ weight.T, rtol=1e-4, atol=1e-5)
