"""What of an experiment's file its fingerprint covers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from taut.stats.experiments._source import source_fingerprint

FILE = '''
import math
from pathlib import Path as Place

SCALE = 2
UNRELATED = 1

def helper(value):
    return math.sqrt(value) * SCALE

def unused():
    return 0

class Base:
    sources = ("initialisation",)

class Mine(Base):
    """What it is."""
    name = "mine"
    def run(self, hyperparameters, streams):
        return helper(4)  # a comment

def make():
    class Inner(Base):
        name = "inner"
        def run(self, hyperparameters, streams):
            return 1.0
    return Inner()
'''


def fingerprint(folder: Path, text: str, expression: str = "Mine()") -> str | None:
    path = folder / "mine.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return source_fingerprint(eval(expression, vars(module)))


def test_code_that_a_run_reaches_changes_it_and_nothing_else(tmp_path: Path) -> None:
    before = fingerprint(tmp_path, FILE)
    for old, new in (
        ("# a comment", "# another"),
        ("UNRELATED = 1", "UNRELATED = 2"),
        ("return 0", "return 9"),
        ("\n\nclass Base", "\n\n\n\nclass Base"),
    ):
        assert fingerprint(tmp_path, FILE.replace(old, new)) == before
    for old, new in (
        ("SCALE = 2", "SCALE = 3"),
        ("import math", "import cmath as math"),
        ("helper(4)", "helper(5)"),
        ('"initialisation"', '"data_split"'),
    ):
        assert fingerprint(tmp_path, FILE.replace(old, new)) != before


def test_an_experiment_made_by_a_function_is_covered(tmp_path: Path) -> None:
    before = fingerprint(tmp_path, FILE, "make()")
    assert before is not None
    assert fingerprint(tmp_path, FILE.replace("return 1.0", "return 2.0"), "make()") != before


def test_what_has_no_file_has_none(tmp_path: Path) -> None:
    names: dict = {}
    exec("class Typed:\n    def run(self, hyperparameters, streams):\n        return 1.0", names)
    assert source_fingerprint(names["Typed"]()) is None
    assert source_fingerprint(object()) is None
