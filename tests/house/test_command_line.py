"""The command line starts at once, and does what its page says."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[2]
START = "import sys; sys.argv = ['taut', '--help']; import taut.cli; taut.cli.main()"


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_takes_less_than_a_third_of_a_second_of_cpu() -> None:
    # The one absolute time in the tests: it is what a user waits for. CPU time, the least of five, on any host.
    taken = []
    for _ in range(5):
        before = cpu_of_children()
        subprocess.run([sys.executable, "-c", START], check=True, capture_output=True)
        taken.append(cpu_of_children() - before)
    assert min(taken) < 0.3


def test_help_imports_nothing_heavy() -> None:
    at_exit = "import atexit, sys; atexit.register(lambda: print('loaded:', *sys.modules))"
    result = subprocess.run([sys.executable, "-c", f"{at_exit}; {START}"], check=True, capture_output=True, text=True)
    usage, loaded = result.stdout.split("loaded:")
    assert "optimize" in usage
    assert {"torch", "numpy", "scipy", "sympy", "pydantic", "jinja2"} & set(loaded.split()) == set()


def documented_options(command: str) -> set[str]:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if part.startswith(f"taut {command}\n")]
    names = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(--[\w-]+)", " ".join(names)))


@pytest.mark.parametrize(
    "command",
    [
        "optimize",
        "quantize",
        "compile",
        "schedule",
        "formats",
        "run",
        "export",
        "report",
        "inspect",
        "compare",
        "doctor",
        "study run",
        "study report",
        "comm probe",
        "comm advise",
    ],
)
def test_the_page_lists_exactly_the_options_there_are(command: str) -> None:
    from taut.cli._app import app

    parsed = get_command(app)
    for word in command.split():
        parsed = parsed.commands[word]  # pyright: ignore[reportAttributeAccessIssue]
    names = [name for parameter in parsed.params for name in (*parameter.opts, *parameter.secondary_opts)]
    assert documented_options(command) == {name for name in names if name.startswith("--")} - {"--help"}


def test_the_page_lists_exactly_the_exit_codes_there_are() -> None:
    from taut import errors
    from taut.cli._app import INTERNAL_ERROR

    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    _, section = page.split("\n## Exit codes\n")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TautError)]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == {
        0,
        INTERNAL_ERROR,
        *(kind.exit_code for kind in kinds),
    }


def test_the_page_lists_exactly_the_techniques_and_peers_there_are() -> None:
    from taut.optimize import PEERS, technique_names
    from taut.transform import PASSES

    page = (ROOT / "docs" / "techniques.md").read_text(encoding="utf-8")
    techniques, options = page.split("\n## Options\n")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|.*\|$", techniques, re.MULTILINE)
    assert [name for name, _ in rows] == [*technique_names(), *PEERS]
    changing = {name for name, results in rows if results == "change"}
    assert changing == {name for name, one in PASSES.items() if one.changes_numerics}
    table = re.findall(r"^\| ([^|]+) \| `(\w+)` \|", options.split("\n## ")[0], re.MULTILINE)
    with_options = [name for name, one in PASSES.items() if one.defaults]
    documented = {
        (name, option)
        for passes, option in table
        for name in (with_options if passes == "all" else re.findall(r"`(\w+)`", passes))
    }
    assert documented == {(name, option) for name, one in PASSES.items() for option in one.defaults}


def test_help_works_without_a_home_or_terminal(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "TERM")}
    result = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
