"""Scores out of CSV and JSON files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taut.errors import DataError

_SEED = "seed"
_PART = "part"  # in what `taut study report --scores` writes
_ONLY = "score"  # the name of the column in a file without names


@dataclass(frozen=True)
class Scores:
    """Scores of one system.

    Attributes:
        values: shape (n,), float64.
        seeds: of each run, as text, whole numbers without a point; empty if the file has none.
        metric: the column that was read.
        parts: parts of a study that the rows belong to, where there is such a column.
    """

    values: np.ndarray
    seeds: tuple[str, ...]
    metric: str
    parts: tuple[str, ...] = ()


def read_scores(
    path: Path | str,
    *,
    metric: str | None = None,
    seed: str | None = None,
    system: tuple[str, str] | None = None,
) -> Scores:
    """Read the scores of one system.

    CSV files have a row a run and the names of the columns in the first row, or a number a line and no name. JSON files
    are a list of numbers, a list of objects (one a run), or an object of lists (one a column); `.jsonl` files have an
    object a line.

    Args:
        path: the file; its suffix, .csv, .json or .jsonl, says what it is.
        metric: the column with the scores; may be left out where only one column besides the others holds numbers.
        seed: the column with the seeds; by default "seed" where there is one.
        system: a column and a value: read the rows with that value only.

    Raises:
        DataError: the file cannot be read, has no such column or row, or a score is not a finite number.
    """
    path = Path(path)
    table = _table(path, _text(path))
    rows = range(len(next(iter(table.values()))))
    seed_column = _column(path, table, seed) if seed is not None else (_SEED if _SEED in table else None)
    special = {seed_column}
    if system:
        column, name = system
        special.add(_column(path, table, column))
        rows = [row for row in rows if str(table[column][row]) == name]
        if not rows:
            names = ", ".join(sorted({str(value) for value in table[column]})[:10])
            raise DataError(f"{path}: no row with {column} {name!r}", expected=f"one of {names}")
    if not len(rows):
        raise DataError(f"{path}: there is no run in it", expected="one row for each run")
    # One number is enough: a column in which a run failed must not leave its place to another one.
    numeric = [
        name for name, values in table.items() if name not in special and any(_numeric(values[row]) for row in rows)
    ]
    if metric is not None:
        metric = _column(path, table, metric)
    elif len(numeric) == 1:
        (metric,) = numeric
    else:
        raise DataError(
            f"{path}: which column holds the scores? {len(numeric)} hold numbers: {', '.join(numeric) or 'none'}",
            expected="the name of one column",
            fix="name it with --metric",
        )
    values = np.array([_number(path, metric, row, table[metric][row]) for row in rows])
    seeds = () if seed_column is None else tuple(_seed(path, row, table[seed_column][row]) for row in rows)
    parts = dict.fromkeys(str(table[_PART][row]) for row in rows) if _PART in table and metric != _PART else ()
    return Scores(values, seeds, metric, tuple(parts))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", expected="a file of scores") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text in UTF-8", expected="a CSV or JSON file of scores") from error


def _table(path: Path, text: str) -> Mapping[str, Sequence[Any]]:
    """Columns of equal length by name, at least one."""
    kind = path.suffix.lower()
    if kind == ".csv":
        return _csv_table(path, text)
    if kind not in (".json", ".jsonl"):
        raise DataError(f"{path}: the suffix {kind!r} says no format", expected="a .csv, .json or .jsonl file")
    try:
        if kind == ".jsonl":
            document = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: is not JSON ({error})", expected="a list of scores, or of one object a run"
        ) from error
    if isinstance(document, dict):
        lists = {str(name): value for name, value in document.items() if isinstance(value, list)}
        if len({len(value) for value in lists.values()}) != 1:
            lengths = {name: len(value) for name, value in lists.items()}
            raise DataError(
                f"{path}: its lists have the lengths {lengths}", expected="lists of one length, one a column"
            )
        return lists
    if isinstance(document, list) and document:
        if all(isinstance(row, dict) for row in document):
            names = dict.fromkeys(name for row in document for name in row)
            return {name: [row.get(name) for row in document] for name in names} or {_ONLY: []}
        if not any(isinstance(row, (dict, list)) for row in document):
            return {_ONLY: document}
    raise DataError(f"{path}: holds no scores", expected="a list of numbers, or of one object a run")


def _csv_table(path: Path, text: str) -> Mapping[str, Sequence[Any]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path}: is not CSV ({error})", expected="one row for each run") from error
    if not rows:
        raise DataError(f"{path}: is empty", expected="one row for each run")
    if all(len(row) == 1 and _numeric(row[0]) for row in rows[:1]):
        names, body = [_ONLY], rows
    else:
        names, body = [name.strip() for name in rows[0]], rows[1:]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two columns have the same name: {', '.join(names)}", expected="different names")
    for number, row in enumerate(body, 1):
        if len(row) != len(names):
            raise DataError(
                f"{path}: run {number} has {len(row)} fields: {', '.join(row)[:80]}",
                expected=f"{len(names)}, one for each column: {', '.join(names)[:80]}",
                fix="fill in what is missing"
                if len(row) < len(names)
                else "take out what is too many, or put a field that holds a comma in double quotes",
            )
    return {name: [row[index].strip() for row in body] for index, name in enumerate(names)}


def _column(path: Path, table: Mapping[str, Sequence[Any]], name: str) -> str:
    if name not in table:
        raise DataError(f"{path}: there is no column {name!r}", expected=f"one of {', '.join(table)}")
    return name


def _seed(path: Path, row: int, value: object) -> str:
    """The seed as text; a whole number is one however it was written, as 1 or as 1.0."""
    if value is None or not str(value).strip():
        raise DataError(
            f"{path}: run {row + 1} has no seed",
            expected="a seed for every run",
            fix="fill it in, or take the column out and compare unpaired",
        )
    text = str(value).strip()
    whole, _, rest = text.partition(".")
    return whole if rest and not rest.strip("0") and whole.lstrip("+-").isdecimal() else text


def _numeric(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, bool)


def _number(path: Path, metric: str, row: int, value: object) -> float:
    if not _numeric(value) or not np.isfinite(number := float(value)):  # type: ignore[arg-type]
        raise DataError(
            f"{path}: {metric} of run {row + 1} is {value!r}",
            expected="a finite number",
            fix="give a failed run the worst score that is possible, or leave it out of both systems",
        )
    return number
