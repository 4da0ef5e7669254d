"""The published graphs and schedules, and files that are none."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.compile.interop import Slice, Stage, read_ios_graph, read_ios_schedule, validate
from taut.errors import ArtefactError, TautError


def convolution(name: str, source: str, channels: int, hint: str | None = None) -> dict[str, Any]:
    return {
        "type": "conv",
        "name": name,
        "hint_name": hint or name,
        "inputs": [[[source, 0, 3]]],
        "out_channels": channels,
        "kernel": [1, 1],
        "stride": [1, 1],
        "padding": [0, 0],
        "groups": 1,
        "act": "relu",
        "output_shape": [channels, 8, 8],
    }


DOCUMENT: dict[str, Any] = {
    "name": "network",
    "input": {"type": "placeholder", "name": "0", "hint_name": "0", "output_shape": [3, 8, 8]},
    "blocks": [
        {
            "enter_name": "0",
            "enter_node": {"type": "placeholder", "name": "0", "hint_name": "0", "output_shape": [3, 8, 8]},
            "inner_nodes": [
                convolution("1", "0", 8, "1 2"),
                {
                    "type": "pool",
                    "name": "3",
                    "hint_name": "3",
                    "inputs": [[["1", 4, 8]]],
                    "pool_type": "avg",
                    "kernel": [3, 3],
                    "stride": [1, 1],
                    "padding": [1, 1],
                    "output_shape": [4, 8, 8],
                },
            ],
            "exit_node": {
                "type": "identity",
                "name": "4",
                "hint_name": "4",
                "inputs": [[["1", 0, 4]], [["3", 0, 4]]],
                "output_shape": [8, 8, 8],
            },
            "stages": [[["1"]], [["3", "4"]]],
        }
    ],
}


def write(folder: Path, document: Any) -> Path:
    path = folder / "schedule.json"
    path.write_text(json.dumps(document))
    return path


def test_every_published_schedule_is_valid(published: Path) -> None:
    paths = sorted((published / "specialization").glob("*.json"))
    assert len(paths) == 7
    merged = {}
    for path in paths:
        network = read_ios_schedule(path)
        assert (len(network.blocks), network.input_shape) == (13, (3, 299, 299))
        for block in network.blocks:
            validate(block.graph, block.schedule, r=3, s=8)
        stages = [stage for block in network.blocks for stage in block.schedule.stages]
        merged[path.stem] = sum(stage.strategy == "merge" for stage in stages)
    assert merged == {"1": 9, "16": 4, "32": 4, "64": 2, "128": 4, "k80": 5, "v100": 9}


def test_published_merges_are_legal(published: Path) -> None:
    # Batch 16 merges 108, 109 and 112 of a block that batch 1 leaves apart.
    block = read_ios_schedule(published / "specialization" / "1.json").blocks[11]
    names = [operator.name for operator in block.graph.operators]
    classes = block.graph.merge_classes()
    assert len({classes[names.index(name)] for name in ("108", "109", "112")}) == 1
    assert classes[names.index("110")] == classes[names.index("111")]
    assert classes[names.index("110")] != classes[names.index("114")]


def test_all_random_graphs_load(published: Path) -> None:
    sizes = [len(read_ios_graph(path)) for path in sorted((published / "randwire").glob("*.txt"))]
    assert sizes == [17, 33, 33, 33, 321]


def test_what_a_schedule_file_says(tmp_path: Path) -> None:
    network = read_ios_schedule(write(tmp_path, DOCUMENT))
    (block,) = network.blocks
    validate(block.graph, block.schedule)
    assert block.schedule.stages == (Stage(((0,),), "merge"), Stage(((1, 2),)))
    assert block.graph.edges == ((0, 1), (0, 2), (1, 2))
    merged, pool, last = block.graph.operators
    assert merged.attributes["merged"] == ("1", "2")
    assert merged.convolution is not None
    assert pool.convolution is None
    assert pool.attributes["pool_type"] == "avg"
    assert last.attributes["inputs"] == ((Slice("1", 0, 4),), (Slice("3", 0, 4),))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


JUNK = st.sampled_from([None, True, -1, 0, 7, 1 << 80, 1.5, "", "1", "9", [], [[]], {}, [["1", 0, 99]], "x" * 300])


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(list(places(DOCUMENT))), junk=JUNK, remove=st.booleans())
def test_a_changed_file_is_read_or_refused(tmp_path: Path, place: tuple[Any, ...], junk: object, remove: bool) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    if remove:
        del holder[place[-1]]
    else:
        holder[place[-1]] = junk
    try:
        network = read_ios_schedule(write(tmp_path, document))
        for block in network.blocks:
            validate(block.graph, block.schedule)
    except TautError as error:
        assert error.expected


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text("0123456789 \n-+x", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_ios_graph, read_ios_schedule):
        try:
            read(path)
        except ArtefactError as error:
            assert error.expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 numbers"),
        ("3 2 0 1", "2 numbers"),
        ("2 1 0 2", "beyond 1"),
        ("2 2 0 1 1 0", "cycle"),
        ("2 1 0 -1", "'-1'"),
        ("0 0", "0 nodes"),
        ("4096 0", "4096 nodes"),
        ("99999999999 0", "'99999999999'"),
    ],
)
def test_malformed_graph_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "graph.txt"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=message):
        read_ios_graph(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("blocks", 0, "enter_name"), "9", "enters with '9'"),
        (("blocks", 0, "stages", 0), [["7"]], "a stage names '7'"),
        (("blocks", 0, "inner_nodes", 1, "name"), "1", "two nodes are called '1'"),
        (("blocks", 0, "inner_nodes", 1, "inputs"), [[["1", 4, 9]]], "channels 4 to 9 of '1', which has 8"),
        (("blocks", 0, "inner_nodes", 1, "inputs"), [[["4", 0, 8]]], "cycle"),
        (("blocks", 0, "inner_nodes", 0, "type"), "magic", "'1' is of type 'magic'"),
        (("blocks", 0, "inner_nodes", 0, "kernel"), [0, 1], "kernel or stride of 0"),
        (("blocks", 0, "exit_node"), None, "exit_node is missing"),
    ],
)
def test_malformed_schedule_files(tmp_path: Path, place: tuple[Any, ...], value: object, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with pytest.raises(ArtefactError, match=message):
        read_ios_schedule(write(tmp_path, document))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(ArtefactError, match="nested too deeply"):
        read_ios_schedule(deep)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((16 << 20) + 1)
    for read in (read_ios_graph, read_ios_schedule):
        with pytest.raises(ArtefactError, match="cannot be read"):
            read(tmp_path / "absent")
        with pytest.raises(ArtefactError, match="cannot be read"):
            read(tmp_path)
        with pytest.raises(ArtefactError, match="more than 16 MiB"):
            read(large)
