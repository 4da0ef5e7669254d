"""Parsed sentences as binary trees, and the child-sum Tree-LSTM over them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from taut.errors import DataError

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "text" / "trees"
INPUTS, STATE = 300, 150


@dataclasses.dataclass(frozen=True)
class Tree:
    """A leaf with a word, or a node with two children."""

    word: str = ""
    children: tuple[Tree, ...] = ()

    @property
    def leaves(self) -> int:
        return sum(child.leaves for child in self.children) or 1


def read_trees(name: str = "test.txt") -> list[Tree]:
    """The trees of a file, chains of single children shortened; lines with unbalanced brackets are left out."""
    path = FOLDER / name
    if not path.is_file():
        raise DataError(f"no file of trees at {path}", fix="put the data set's file there")
    parsed = (parse_tree(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [tree for tree in parsed if tree is not None]


def parse_tree(line: str) -> Tree | None:
    """The tree in brackets, e.g. `(3 ( ( Good) ( price)))`; None if it is malformed."""
    stack: list[list[Tree]] = [[]]
    tokens = re.findall(r"[()]|[^\s()]+", line)
    for position, token in enumerate(tokens):
        if token == "(":
            stack.append([])
        elif token == ")":
            children = stack.pop()
            if not stack or not children:
                return None
            stack[-1].append(_joined(children))
        elif position > 1:  # the first is the label of the root
            stack[-1].append(Tree(token))
    return stack[0][0] if len(stack) == 1 and len(stack[0]) == 1 else None


def _joined(children: list[Tree]) -> Tree:
    """Children as one binary tree."""
    joined = children[0]
    for child in children[1:]:
        joined = Tree(children=(joined, child))
    return joined


class Leaf(nn.Module):
    """States of words (N, 300): hidden and cell, (N, 150) each. Without children no forget gate is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(INPUTS, 3 * STATE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given, output, candidate = self.gates(x).chunk(3, -1)
        cell = given.sigmoid() * candidate.tanh()
        return output.sigmoid() * cell.tanh(), cell


class Node(nn.Module):
    """States of nodes from those of their two children, (N, 150) each.

    Source: Tai et al., "Improved Semantic Representations From Tree-Structured Long Short-Term Memory Networks" (ACL
    2015), section 3.1: gates from the sum of the children, a forget gate for each child.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(STATE, 3 * STATE)
        self.forget = nn.Linear(STATE, STATE)

    def forward(self, h0: Tensor, c0: Tensor, h1: Tensor, c1: Tensor) -> tuple[Tensor, Tensor]:
        given, output, candidate = self.gates(h0 + h1).chunk(3, -1)
        kept = self.forget(h0).sigmoid() * c0 + self.forget(h1).sigmoid() * c1
        cell = given.sigmoid() * candidate.tanh() + kept
        return output.sigmoid() * cell.tanh(), cell


def cells() -> tuple[Leaf, Node]:
    torch.manual_seed(0)
    return Leaf().eval().requires_grad_(False), Node().eval().requires_grad_(False)
