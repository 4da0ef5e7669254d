"""The random graphs of RandWire networks as the IOS project stores them."""

from __future__ import annotations

import re
from pathlib import Path

from taut.compile.interop._graph import MOST_OPERATORS, Operator, OperatorGraph
from taut.errors import ArtefactError, GraphError

MOST_BYTES = 16 << 20
NUMBER = re.compile(r"[0-9]{1,9}")


def read_ios_graph(path: str | Path) -> OperatorGraph:
    """Reads a random graph: the number of nodes, the number of edges, then the edges, all split by white space.

    Each node becomes an operator of that number. One more, `exit`, joins the results that no node uses, so that the
    graph is a block with a single result.

    Raises:
        ArtefactError: the file cannot be read or is no such graph.
    """
    words = read_limited(path).decode("ascii", errors="replace").split()
    wrong = next((word for word in words if not NUMBER.fullmatch(word)), None)
    if wrong is not None:
        raise _malformed(path, f"{wrong[:40]!r} where a number should be")
    values = [int(word) for word in words]
    if len(values) < 2 or len(values) != 2 + 2 * values[1]:
        raise _malformed(path, f"{max(len(values) - 2, 0)} numbers after the number of nodes and of edges")
    size = values[0]
    if not 1 <= size < MOST_OPERATORS:
        raise _malformed(path, f"{size} nodes")
    edges = list(zip(values[2::2], values[3::2], strict=True))
    if any(max(edge) >= size for edge in edges):
        raise _malformed(path, f"an edge to a node beyond {size - 1}")
    used = {producer for producer, _ in edges}
    operators = [Operator(str(number), "conv") for number in range(size)]
    operators.append(Operator("exit", "identity"))
    edges += [(number, size) for number in range(size) if number not in used]
    try:
        return OperatorGraph.from_edges(size + 1, edges, operators)
    except GraphError as error:
        raise _malformed(path, error.message) from error


def read_limited(path: str | Path) -> bytes:
    """The content of a file of at most 16 MiB; raises ArtefactError if there is no such file."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}", expected="a readable file") from error
    if len(content) > MOST_BYTES:
        raise ArtefactError(f"{path} has more than {MOST_BYTES >> 20} MiB", expected="a smaller file")
    return content


def _malformed(path: str | Path, found: str) -> ArtefactError:
    return ArtefactError(
        f"{path} is no graph file: {found}",
        expected=f"the number of nodes (below {MOST_OPERATORS}), the number of edges, and two nodes for each edge, "
        "without cycles",
    )
