"""Trees node by node: LEVELS, ELEMENT and STACK."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from assembly import F32, Op, flat, nested, program, session, sizes, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError, GuardError, KernelError
from taut.runtime import Object

LEAF, BOTH, LAST = 5, -1, 3
CASES = {LEAF: (), BOTH: (0, 1), LAST: (2,)}

trees = st.recursive(
    st.integers(0, 99).map(lambda number: Object(LEAF, [number])),
    lambda children: st.one_of(
        st.builds(lambda a, b: Object(BOTH, [a, b]), children, children),
        st.builds(lambda a: Object(LAST, [7, [8], a]), children),
    ),
    max_leaves=20,
)


def levels(*words: int) -> tuple[int, ...]:
    """LEVELS of register 0 with the nodes in register 1 and the lists in register 2."""
    cases = [word for tag, children in CASES.items() for word in (tag, len(children), *children)]
    return (int(Op.LEVELS), 2, 1, 0, 0, *(words or (len(CASES), *cases)))


LISTED = session(program([nested("tree")], levels(), flat(Op.STORE, 3, 0), flat(Op.RETURN, [3, 1, 2])))


def height(node: Object) -> int:
    children = [node.fields[position] for position in CASES[node.tag]]
    return 1 + max(map(height, children)) if children else 0


def nodes_of(node: Object) -> list[Object]:
    return [node, *(part for position in CASES[node.tag] for part in nodes_of(node.fields[position]))]


@settings(max_examples=60)
@given(tree=trees)
def test_steps_are_all_nodes_of_one_height_and_case(tree: Object) -> None:
    steps, listed, words = LISTED(tree)
    nodes, words = listed.fields, words.tolist()
    wanted = sorted((height(node), list(CASES).index(node.tag)) for node in nodes_of(tree))
    assert [(height(node), list(CASES).index(node.tag)) for node in nodes] == wanted
    assert steps == len(set(wanted))
    first = 0
    for step in range(steps):
        case, start, count, position = words[4 * step : 4 * step + 4]
        assert (start, count) == (first, wanted.count((height(nodes[first]), case)))
        for child, field in enumerate(list(CASES.values())[case]):
            for row in range(count):
                number = words[position + child * count + row]
                assert number < start
                assert nodes[number] == nodes[start + row].fields[field]
        first += count
    assert first == len(nodes) == len(nodes_of(tree))
    assert len(words) == 4 * steps + len(nodes) - 1


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (Object(9, []), "a node has the tag 9, which no case is given for"),
        (Object(BOTH, [Object(LEAF, [])]), "field 1 of a node with the tag -1 is missing"),
        (Object(LAST, [1, 2, 3]), "field 2 of a node with the tag 3 is an integer"),
        (Object(LAST, [1, 2, torch.zeros(1)]), "field 2 of a node with the tag 3 is a tensor"),
    ],
)
def test_a_tree_of_another_kind_is_refused(tree: Object, text: str) -> None:
    with pytest.raises(GuardError, match=text):
        LISTED(tree)


def test_a_deep_tree() -> None:
    tree: Any = Object(LEAF, [])
    for _ in range(400):
        tree = Object(LAST, [0, 0, tree])
    assert LISTED(tree)[0] == 401


def doubled(times: int) -> Any:
    """A tree whose two children are the same object, and so on: 2 ** times leaves in as few objects."""
    double = [flat(Op.MAKE, 0, BOTH, [0, 0])] * times
    return program(
        [nested("tree")], *double, levels(), flat(Op.LENGTH, 1, 1), flat(Op.STORE, 3, 1), flat(Op.RETURN, [3])
    )


def test_a_shared_child_is_a_node_for_each_parent() -> None:
    assert session(doubled(5))(Object(LEAF, [])) == [63]


def test_endless_sharing_ends_at_the_limits() -> None:
    with pytest.raises(GraphError, match="more than 100000 steps"):
        session(doubled(60), step_limit=100_000)(Object(LEAF, []))
    with pytest.raises(KernelError, match="memory is exhausted"):
        session(doubled(60), memory_limit=1 << 22)(Object(LEAF, []))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((1, 5), "is cut short"),
        ((-1,), "case -1 does not exist"),
        ((1, 5, 1, -1), "field -1 does not exist"),
        ((1, 5, 2**40), f"child {2**40} does not exist"),
        ((1, 5, 0, 0), "has 9 words"),
    ],
)
def test_malformed_cases_are_refused(words: tuple[int, ...], text: str) -> None:
    with pytest.raises(GraphError, match=text):
        session(program([nested("tree")], levels(*words), flat(Op.RETURN, [])))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_an_element_of_a_list(dtype: torch.dtype) -> None:
    parameters = [tensor("x", 3, dtype=dtype)]
    made = program(parameters, sizes(0, 2), flat(Op.ELEMENT, 2, 0, 1), flat(Op.STORE, 1, 2), flat(Op.RETURN, [1]))
    assert session(made)(torch.tensor([0, 0, 1], dtype=dtype)) == [1]


def test_an_element_outside_or_of_another_kind_is_refused() -> None:
    def element(index: int, x: torch.Tensor) -> list[Any]:
        parameters = [tensor("x", *x.shape, dtype=x.dtype)]
        made = program(parameters, sizes(index), flat(Op.ELEMENT, 0, 0, 0), flat(Op.RETURN, []))
        return session(made)(x)

    for index in (-1, 3):
        with pytest.raises(GraphError, match=f"element {index} does not exist"):
            element(index, torch.arange(3))
    for x in (torch.zeros(3), torch.zeros(3, 1, dtype=torch.int64)):
        with pytest.raises(GraphError, match="one dimension of integers or bools"):
            element(0, x)


def stacked(first: int, rows: int) -> Any:
    """Field 1 of the nodes from `first` on, as rows of 3."""
    return session(
        program(
            [nested("nodes")],
            sizes(rows, 3, first),
            flat(Op.NEW, 1, F32, [0, 1]),
            flat(Op.STACK, 1, 0, 2, 1),
            flat(Op.RETURN, [1]),
        ),
        poison=True,
    )


def test_fields_become_rows() -> None:
    rows = torch.randn(5, 3)
    nodes = [Object(0, [0, row]) for row in (*rows[:3], torch.stack([rows[3]] * 2, 1)[:, 0])]
    assert torch.equal(stacked(1, 3)(nodes)[0], rows[1:4])
    assert stacked(4, 0)(nodes)[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (torch.zeros(4), r"float32 \(4,\)"),
        (torch.zeros(3, dtype=torch.int64), r"int64 \(3,\)"),
        (torch.zeros(1, 3), r"float32 \(1, 3\)"),
        (4, "an integer"),
    ],
)
def test_a_field_that_is_no_such_row_is_refused(field: Any, text: str) -> None:
    with pytest.raises(GuardError, match=rf"field 1 of a node with the tag 6 is {text}"):
        stacked(0, 1)([Object(6, [0, field])])


def test_rows_that_are_no_nodes_are_refused() -> None:
    nodes = [Object(6, [0, torch.zeros(3)]), Object(6, [])]
    with pytest.raises(GuardError, match="field 1 of a node with the tag 6 is missing"):
        stacked(1, 1)(nodes)
    with pytest.raises(GraphError, match="the object holds an integer"):
        stacked(0, 1)([1])
    for first, rows in ((-1, 1), (0, 3), (2, 1), (3, 0)):
        with pytest.raises(GraphError, match="do not exist"):
            stacked(first, rows)(nodes)


def test_only_memory_of_its_own_is_written() -> None:
    made = program([nested("nodes"), tensor("x", 1, 3)], sizes(0), flat(Op.STACK, 1, 0, 0, 1), flat(Op.RETURN, [1]))
    with pytest.raises(GraphError, match="may not be written"):
        session(made)([Object(6, [0, torch.zeros(3)])], torch.zeros(1, 3))
