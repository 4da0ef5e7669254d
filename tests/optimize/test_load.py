"""From what the user typed to a model: every wrong turn is a typed error that names it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from taut.errors import ArgumentError, MissingExtraError, ModelLoadError
from taut.optimize import load_model

FACTORY = """
import torch
from taut.errors import MissingExtraError
def model():
    return torch.nn.Linear(4, 3)
def with_inputs():
    return torch.nn.Linear(4, 3), torch.ones(5, 4)
def with_shapes():
    return torch.nn.Linear(4, 3), (torch.ones(5, 4),), ({0: torch.export.Dim("b", min=2, max=9)},)
def raises():
    raise KeyError("weights")
def exits():
    raise SystemExit(3)
def wrong():
    return 42
def extra():
    raise MissingExtraError("numpy", extra="demo", needed_for="this")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    return path


def test_a_factory_may_return_a_module_with_inputs_and_shapes(factory: Path) -> None:
    assert load_model(f"{factory}:model").example_inputs is None
    loaded = load_model(f"{factory}:with_inputs")
    assert loaded.example_inputs is not None
    assert loaded.example_inputs[0].shape == (5, 4)
    assert load_model(f"{factory}:with_shapes").dynamic_shapes is not None
    assert loaded.name == "mine-with_inputs"


def test_a_module_on_the_import_path_works() -> None:
    loaded = load_model("torch.nn:Identity")
    assert isinstance(loaded.module, torch.nn.Identity)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", ["KeyError", "weights", "mine.py:"]),
        ("exits", ["SystemExit"]),
        ("wrong", ["returned (int)", "nn.Module"]),
        ("missing", ["no function 'missing'", "with_inputs"]),
    ],
)
def test_a_bad_factory_is_named(factory: Path, name: str, words: list[str]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_model(f"{factory}:{name}")
    for word in words:
        assert word in str(caught.value)


def test_tauts_own_errors_pass_through_a_factory(factory: Path) -> None:
    with pytest.raises(MissingExtraError):
        load_model(f"{factory}:extra")


def test_files_and_modules_that_are_missing_or_broken(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def model(:\n")
    imports = tmp_path / "imports.py"
    imports.write_text("import no_such_package_at_all\n")
    for spec, word in [
        (f"{tmp_path}/none.py:model", "no file"),
        (f"{broken}:model", "SyntaxError"),
        (f"{imports}:model", "no_such_package_at_all"),
        ("no_such_package.module:model", "no module"),
        (f"{tmp_path}/none.pt2", "no such file"),
    ]:
        with pytest.raises(ModelLoadError, match=word):
            load_model(spec)
    with pytest.raises(ArgumentError, match="MODEL"):
        load_model("resnet")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    exported = torch.export.export(
        torch.nn.Linear(4, 3), (torch.ones(5, 4),), dynamic_shapes=({0: torch.export.Dim("b", min=2, max=64)},)
    )
    path = tmp_path / "linear.pt2"
    torch.export.save(exported, path)
    return path


def rewritten(path: Path, out: Path, change) -> Path:
    """A copy of the archive with `change(name, bytes) -> bytes` applied to every member."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, change(info.filename, source.read(info)))
    return out


def test_an_exported_program_loads(program: Path) -> None:
    loaded = load_model(str(program))
    assert isinstance(loaded.module, torch.export.ExportedProgram)
    assert loaded.example_inputs is not None


def test_a_truncated_archive_is_refused(program: Path, tmp_path: Path) -> None:
    content = program.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        cut = tmp_path / "cut.pt2"
        cut.write_bytes(content[:length])
        with pytest.raises(ModelLoadError):
            load_model(str(cut))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch owned')",
        "().__class__",
        "Symbol('s0', positive=True).func",
        "exec('1')",
        "lambda: 1",
    ],
)
def test_an_expression_that_could_run_code_is_refused(program: Path, tmp_path: Path, expression: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        text = content.decode()
        assert "Symbol('" in text
        start = text.index("Symbol('")
        stop = text.index('"', start)
        return (text[:start] + json.dumps(expression)[1:-1] + text[stop:]).encode()

    with pytest.raises(ModelLoadError, match="refused"):
        load_model(str(rewritten(program, tmp_path / "evil.pt2", change)))


def test_a_call_outside_aten_is_refused(program: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.linear.default", b"torch.hub.load_state_dict_from_url")

    with pytest.raises(ModelLoadError, match="refused"):
        load_model(str(rewritten(program, tmp_path / "evil.pt2", change)))


def test_a_pickled_object_is_not_unpickled(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    payload = b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"x": entry}}).encode()
    as_constant = rewritten(
        program, tmp_path / "constant.pt2", lambda name, content: config if "constants_config" in name else content
    )
    with zipfile.ZipFile(as_constant, "a") as archive:
        archive.writestr("linear/data/constants/opaque_obj_0", payload)
    inputs = rewritten(
        program, tmp_path / "inputs.pt2", lambda name, content: payload if "sample_inputs" in name else content
    )
    for path in (as_constant, inputs):
        with pytest.raises(ModelLoadError):
            load_model(str(path))
    assert not marker.exists()
