"""A child-sum Tree-LSTM (300 inputs, 150 states) over parsed sentences, one tree a call, one thread.

Ours composes two cells by a fold over the tree, as it is written for node by node and batched by depth; the machine
recurses, no Python runs inside a call, which starts from nested objects that Python made. The peers call their cells
from recursion in Python: eager modules, onnxruntime sessions, cells of torch.compile. Eager and onnxruntime also run
batched by depth, with the batches' members planned outside of the timing, which is more than their users get. Leaves'
vectors lie ready for every arm. One timed call covers all sampled trees; figures are microseconds a tree.

    python -m benchmarks.tree_lstm [--quick] [--only CASE...] [--peers PEER...] [--json FILE]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _compiled_peers as peers_of
from benchmarks._trees import INPUTS, STATE, Leaf, Node, Tree, cells, read_trees
from taut.compile import CHILD, TENSOR, Case, ProgramBuilder, fold
from taut.runtime import Object, Parameter, Session
from taut.stats import Arm as Timed
from taut.stats import Clock

CASES = ("batched by depth", "node by node")
LEAF, NODE = 0, 1
TREES = 40

Vectors = dict[str, Tensor]
Run = Callable[[], Tensor]
"""One tree to the hidden state of its root (1, 150)."""
Bind = Callable[[Tree, Vectors], Run]
CellFunctions = tuple[Callable[..., Any], Callable[..., Any]]


def our_session(leaf: Leaf, node: Node, *, batched: bool) -> Session:
    """Ours, compiled."""
    builder = ProgramBuilder()
    x, state = torch.zeros(2, INPUTS), torch.zeros(2, STATE)
    cases = {
        LEAF: Case(builder.cell("leaf", leaf, (x,)), (TENSOR,)),
        NODE: Case(builder.cell("node", node, (state, state, state, state)), (CHILD, CHILD)),
    }
    return builder.compile(fold("encode", cases, batched=batched), (Parameter("tree", "object"),))


def as_object(tree: Tree, vectors: Vectors) -> Object:
    if not tree.children:
        return Object(LEAF, (vectors[tree.word],))
    return Object(NODE, tuple(as_object(child, vectors) for child in tree.children))


def our_bind(session: Session) -> Bind:
    def bind(tree: Tree, vectors: Vectors) -> Run:
        given = as_object(tree, vectors)
        return lambda: session(given)[0]

    return bind


def recursive_bind(functions: CellFunctions, convert: Callable[[Tensor], Any]) -> Bind:
    """A peer that calls its cells node by node from Python."""
    leaf, node = functions

    def bind(tree: Tree, vectors: Vectors) -> Run:
        rows = {word: convert(vector[None]) for word, vector in vectors.items()}

        def states(part: Tree) -> tuple[Any, Any]:
            if not part.children:
                return leaf(rows[part.word])
            first, second = part.children
            return node(*states(first), *states(second))

        return lambda: torch.as_tensor(states(tree)[0])

    return bind


def batched_bind(functions: CellFunctions, convert: Callable[[Tensor], Any], xp: Any) -> Bind:
    """A peer that calls its cells once for all nodes of equal depth; `xp` is the library of its arrays."""
    leaf, node = functions

    def bind(tree: Tree, vectors: Vectors) -> Run:
        words, levels = plan_levels(tree)
        x = convert(torch.stack([vectors[word] for word in words]))
        indices = [(convert(torch.tensor(left)), convert(torch.tensor(right))) for left, right in levels]

        def run() -> Tensor:
            hidden, cell = leaf(x)
            for left, right in indices:
                made = node(hidden[left], cell[left], hidden[right], cell[right])
                hidden, cell = xp.concatenate([hidden, made[0]]), xp.concatenate([cell, made[1]])
            return torch.as_tensor(hidden[-1:])

        return run

    return bind


def plan_levels(tree: Tree) -> tuple[list[str], list[tuple[list[int], list[int]]]]:
    """The words, and for each height the rows of the left and the right children of its nodes; the root comes last."""
    words: list[str] = []
    heights: dict[int, list[Tree]] = {}
    rows: dict[int, int] = {}

    def visit(part: Tree) -> int:
        if not part.children:
            rows[id(part)] = len(words)
            words.append(part.word)
            return 0
        height = 1 + max(visit(child) for child in part.children)
        heights.setdefault(height, []).append(part)
        return height

    visit(tree)
    levels = []
    following = len(words)
    for height in sorted(heights):
        sides = ([], [])
        for part in heights[height]:
            for side, child in zip(sides, part.children, strict=True):
                side.append(rows[id(child)])
            rows[id(part)] = following
            following += 1
        levels.append(sides)
    return words, levels


def onnx_cells(leaf: Leaf, node: Node, folder: Path) -> CellFunctions:
    """Sessions of the cells over a batch of any size, on NumPy arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    batch = torch.export.Dim("batch", min=1, max=4096)
    found = []
    for name, module, widths in (("leaf", leaf, (INPUTS,)), ("node", node, (STATE,) * 4)):
        example = tuple(torch.zeros(3, width) for width in widths)
        path = peers_of.export_onnx(module, example, tuple({0: batch} for _ in widths), folder / f"{name}.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        found.append(lambda *xs, run=session.run, names=names: run(None, dict(zip(names, xs, strict=True))))
    return found[0], found[1]


def compiled_cells(leaf: Leaf, node: Node) -> CellFunctions:
    state = torch.zeros(1, STATE)
    functions = torch.compile(leaf), torch.compile(node)
    functions[0](torch.zeros(1, INPUTS))
    functions[1](state, state, state, state)
    return functions


def peer_binds(leaf: Leaf, node: Node, folder: Path, options: argparse.Namespace) -> dict[str, Bind]:
    def numpy(x: Tensor) -> np.ndarray:
        return x.numpy()

    def same(x: Tensor) -> Tensor:
        return x

    sessions: list[CellFunctions] = []

    def onnx() -> CellFunctions:
        if not sessions:
            sessions.append(onnx_cells(leaf, node, folder))
        return sessions[0]

    builders: dict[str, Callable[[], Bind]] = {
        "torch eager cells": lambda: recursive_bind((leaf, node), same),
        "torch eager by depth": lambda: batched_bind((leaf, node), same, torch),
        "onnxruntime cells": lambda: recursive_bind(onnx(), numpy),
        "onnxruntime by depth": lambda: batched_bind(onnx(), numpy, np),
        "torch.compile cells": lambda: recursive_bind(compiled_cells(leaf, node), same),
    }
    binds, absent = peers_of.collect(builders, options)
    peers_of.print_absent(absent)
    return binds


class NativePass:
    """Each tree in the session's own loop, which reads the tree once; blocks repeat the whole pass."""

    name, needs_warm_up = "taut native", False

    def __init__(self, session: Session, objects: Sequence[Object]) -> None:
        self._session, self._objects = session, objects

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        start = clock.read()
        for given in self._objects:
            self._session.time((given,), repeats)
        return clock.read() - start


def whole_pass(name: str, bind: Bind, trees: Sequence[Tree], vectors: Sequence[Vectors]) -> Timed:
    runs = [bind(tree, given) for tree, given in zip(trees, vectors, strict=True)]

    def run() -> None:
        for each in runs:
            each()

    return Timed(run, name)


def word_vectors(tree: Tree) -> Vectors:
    """A random vector for each word of a tree."""
    return {word: torch.randn(INPUTS) for word in plan_levels(tree)[0]}


def check(name: str, bind: Bind, wanted: Bind, trees: Sequence[Tree], vectors: Sequence[Vectors]) -> None:
    for tree, given in zip(trees, vectors, strict=True):
        torch.testing.assert_close(
            bind(tree, given)(), wanted(tree, given)(), rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}"
        )


def measure(case: str, binds: dict[str, Bind], networks: tuple[Leaf, Node], options: Any) -> list[dict[str, Any]]:
    trees = random.Random(0).sample([tree for tree in read_trees() if tree.children], TREES)
    leaves = sum(tree.leaves for tree in trees)
    vectors = [word_vectors(tree) for tree in trees]
    print(f"  {TREES} trees, {leaves / TREES:.1f} leaves on average, {max(tree.leaves for tree in trees)} at most")
    session = our_session(*networks, batched=case == CASES[0])
    eager = recursive_bind(networks, lambda x: x)
    for name, bind in {"taut": our_bind(session), **binds}.items():
        check(name, bind, eager, trees, vectors)
    ours = whole_pass("taut", our_bind(session), trees, vectors)
    native = NativePass(session, [as_object(tree, given) for tree, given in zip(trees, vectors, strict=True)])
    passes = [whole_pass(name, bind, trees, vectors) for name, bind in binds.items()]
    rows = [peers_of.versus_timed(case, native, ours, options, units=TREES)]
    return rows + [peers_of.versus_timed(case, ours, each, options, units=TREES) for each in passes]


def main() -> None:
    options = peers_of.parse(__doc__, CASES)
    with peers_of.benchmark(options) as (document, folder):
        networks = cells()
        binds = peer_binds(*networks, folder, options)
        for case in options.only:
            print(case)
            document["rows"] += measure(case, binds, networks, options)


if __name__ == "__main__":
    main()
