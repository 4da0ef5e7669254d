"""Scripts, decisions and the text of tracked files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
DECISIONS = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))

# Written in parts, so that this file does not hold them: folders of somebody's machine, and the hosts of registries.
FORBIDDEN = [
    re.compile("/" + rest) for rest in (r"work/(main|shared)\b", r"home/\w", r"root/", r"Users/\w", r"tmp/brief")
] + [re.compile(host) for host in (r"pypi\." + "org", r"pythonhosted\." + "org", r"npmjs\." + "(org|com)")]


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short_strict_and_executable(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.startswith("#")]
    assert 3 <= len(code) <= 30
    if script.name.startswith("_"):  # sourced by the others
        return
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines


def test_ci_runs_what_people_run() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "scripts/check" in ci
    assert "scripts/test" in ci
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["scripts/check", "scripts/test"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_works_from_any_directory(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    here = 'cd "$(dirname "${BASH_SOURCE[0]}")/.."'
    assert here in text or 'source "$(dirname "${BASH_SOURCE[0]}")/_environment"' in text


def test_decisions_are_numbered_without_gaps_and_linked() -> None:
    index = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    assert [name for name in DECISIONS if f"]({name})" not in index] == []
    assert [name[:4] for name in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_says_context_choice_evidence_and_what_would_change_it(name: str) -> None:
    text = (ROOT / "docs" / "decisions" / name).read_text(encoding="utf-8")
    assert text.startswith(f"# {name[:4]}: ")
    for part in ("**Context.**", "**Choice.**", "**Measured.**", "**What would change our mind.**"):
        assert part in text


def test_no_file_names_a_machine_or_a_registry_host() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for word in FORBIDDEN for match in word.finditer(text)]
    assert found == []


def test_python_files_stay_below_the_hard_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked_files()
        if path.suffix in (".py", ".cpp", ".h") and (count := len(path.read_bytes().splitlines())) > 600
    }
    assert long == {}
