"""Files of encoded tensors: whole, exact, and safe to read whatever they hold."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from taut.errors import ArtefactError, StorageError, TautError, TruncatedError, VersionError
from taut.numerics import FORMATS, encode, load_encoded, save_encoded


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    tensors = {name: encode(torch.randn(5, 2, 40), name) for name in FORMATS}
    save_encoded(tmp_path / "weights.safetensors", tensors)
    loaded = load_encoded(tmp_path / "weights.safetensors")
    assert list(loaded) == list(tensors)
    for name, item in tensors.items():
        assert loaded[name].format == item.format
        assert loaded[name].shape == item.shape
        assert all(torch.equal(loaded[name].buffers[part], item.buffers[part]) for part in item.buffers)


def test_the_file_holds_the_buffers_and_a_header(tmp_path: Path) -> None:
    encoded = encode(torch.randn(64, 384), "vsq4-v16-s4")
    path = tmp_path / "weights.safetensors"
    save_encoded(path, {"w": encoded})
    assert encoded.nbytes < path.stat().st_size < encoded.nbytes + 600


def write(path: Path, header: object, buffers: dict[str, torch.Tensor] | None = None) -> Path:
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(buffers or {}, path, {"taut.numerics": text})
    return path


def test_files_that_lie_are_refused(tmp_path: Path) -> None:
    encoded = encode(torch.randn(4, 32), "vsq4-v16-s4")
    good = {f"w/{part}": buffer for part, buffer in encoded.buffers.items()}

    def header(shape: object, name: object = "vsq4-v16-s4", version: object = 1) -> object:
        return {"version": version, "tensors": {"w": {"format": name, "shape": shape}}}

    cases: list[tuple[object, type[TautError]]] = [
        (header([4, 33]), ArtefactError),
        (header([4, 2**40]), ArtefactError),
        (header([4, -32]), ArtefactError),
        (header([4, 32.0]), ArtefactError),
        (header([]), ArtefactError),
        (header("4x32"), ArtefactError),
        (header([4, 32], "vsq4-v16"), ArtefactError),
        (header([4, 32], "q4_0"), TruncatedError),
        (header([4, 32], version=2), VersionError),
        (header([4, 32], version="1"), ArtefactError),
        ({"version": 1, "tensors": [1]}, ArtefactError),
        ("[" * 100_000, ArtefactError),
        ("nothing", ArtefactError),
    ]
    for place, (document, expected) in enumerate(cases):
        with pytest.raises(expected):
            load_encoded(write(tmp_path / f"{place}.safetensors", document, good))
    with pytest.raises(ArtefactError):
        save_file(good, tmp_path / "plain.safetensors")
        load_encoded(tmp_path / "plain.safetensors")
    with pytest.raises(TruncatedError, match="missing"):
        load_encoded(tmp_path / "absent.safetensors")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_typed_error_or_other_numbers(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damage") / "w.safetensors"
    save_encoded(path, {"w": encode(torch.ones(2, 20), "vsq4-v16-s4")})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    try:
        loaded = load_encoded(path)
    except ArtefactError:
        return
    for item in loaded.values():
        item.decode()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        save_encoded(tmp_path / "absent" / "w.safetensors", {"w": encode(torch.ones(1, 4), "int8-channel")})
    assert not list(tmp_path.iterdir())
