"""`taut compare`: is one system better than another, from the scores of their runs?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut._files import check_distinct, check_new, write_whole
from taut.cli._json import check_json, write_json
from taut.cli._text import one_line
from taut.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import numpy as np

    from taut.stats import Outperformance, Scores

_POWER = 0.95


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="CSV or JSON file with the scores of A")],
    b: Annotated[str, typer.Argument(metavar="B", help="the same for B")],
    metric: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the scores (default: the only one with numbers).")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the seeds (default: seed, where there is one).")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="One file with both; A and B are names in it.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="With --from: the column with the names of the systems (default: system)."),
    ] = None,
    paired: Annotated[
        bool | None,
        typer.Option("--paired/--unpaired", help="Compare run by run (default: by seed, where both have seeds)."),
    ] = None,
    gamma: Annotated[float, typer.Option(help="The least P(A>B) that is worth a change.")] = 0.75,
    alpha: Annotated[float, typer.Option(help="Probability to err where there is no difference.")] = 0.05,
    correlation: Annotated[
        float, typer.Option(help="Between runs of one system that share a hyper-parameter search.")
    ] = 0.0,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="The scores are losses or times.")] = False,
    json_path: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures as JSON to this new file; - is standard output."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the picture to this new file.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the picture to this new file.")] = None,
) -> None:
    """Decide whether A is better than B from the scores of repeated runs, and say how many runs are missing."""
    if json_path is not None:
        check_json(json_path)
    as_file = Path(json_path) if json_path not in (None, "-") else None
    check_distinct({"--json": as_file, "--html": html, "--svg": svg})
    for option, path in (("--html", html), ("--svg", svg)):
        if path is not None:
            check_new(path, option)
    if system is not None and table is None:
        raise ArgumentError("--system", system, expected="--from FILE beside it: it is a column of that file")
    from taut.stats import comparison_page, draw_comparison, outperformance, read_scores

    both = [
        read_scores(table, metric=metric, seed=seed, system=(system or "system", name))
        if table is not None
        else read_scores(name, metric=metric, seed=seed)
        for name in (a, b)
    ]
    if a == b or (table is None and Path(a).samefile(b)):
        raise ArgumentError("A and B", f"{a} and {b}", expected="two different systems: these are one")
    names = (a, b) if table is not None or Path(a).stem == Path(b).stem else (Path(a).stem, Path(b).stem)
    shown = one_line(names[0]), one_line(names[1])
    for name, scores in zip(shown, both, strict=True):
        if len(scores.parts) > 1:
            raise DataError(
                f"{name}: holds scores of {len(scores.parts)} parts of a study, which are not alike: "
                f"{', '.join(one_line(part) for part in scores.parts)[:200]}",
                expected="the scores of one part",
                fix="export one with taut study report STORE --scores FILE --part PART",
            )
    scores_a, scores_b, paired, how = _match(both[0], both[1], paired)
    found = outperformance(
        scores_a,
        scores_b,
        paired=paired,
        gamma=gamma,
        alpha=alpha,
        correlation=correlation,
        lower_is_better=lower_is_better,
    )
    missing = more_runs(found)
    metric = one_line(both[0].metric)
    facts = _facts(found, scores_a, scores_b, shown, how, metric)
    advice = _advice(found, missing)
    _show(found, shown, facts, advice, stdout=json_path != "-")
    if svg is not None or html is not None:
        picture = draw_comparison(found, scores_a, scores_b, shown, metric)
        if svg is not None:
            _write(svg, picture)
        if html is not None:
            _write(html, comparison_page(found, picture, shown, facts, advice))
    if json_path is not None:
        document = {"a": names[0], "b": names[1], "metric": both[0].metric, "pairing": how, **found.to_dict()}
        write_json({**document, "more_runs": missing}, json_path)


def _match(a: Scores, b: Scores, paired: bool | None) -> tuple[np.ndarray, np.ndarray, bool, str]:
    """Scores in the order in which they are compared, whether they are pairs, and how that came about."""
    from taut.stats import pair_by_seed

    if a.metric != b.metric:
        raise DataError(
            f"A has scores in {a.metric!r} and B in {b.metric!r}", expected="one metric", fix="name it with --metric"
        )
    seeds = bool(a.seeds) and bool(b.seeds)
    if paired is False or (paired is None and not seeds):
        return a.values, b.values, False, "unpaired"
    if bool(a.seeds) != bool(b.seeds):
        raise DataError(
            f"{'A' if a.seeds else 'B'} has seeds and {'B' if a.seeds else 'A'} has none, so runs have no partners",
            expected="seeds in both or in neither, to compare in pairs",
            fix="name the column with --seed, take the seeds out, or compare with --unpaired",
        )
    if not seeds:
        return a.values, b.values, True, "paired by position"
    scores_a, scores_b, left_out = pair_by_seed(a.seeds, a.values, b.seeds, b.values)
    return scores_a, scores_b, True, "paired by seed" + (f", {left_out} runs without a partner" if left_out else "")


def more_runs(found: Outperformance) -> dict[str, int | None]:
    """Runs of each system that are missing to find gamma, and to find the estimate, with a probability of 95 %.

    None where no number of runs suffices, or, for the estimate, where it is exactly 1/2.
    """
    from taut.stats import runs_needed

    def missing(probability: float) -> int | None:
        needed = runs_needed(
            probability,
            paired=found.paired,
            alpha=found.alpha,
            beta=1 - _POWER,
            correlation=found.correlation,
            ties=found.ties if found.paired and found.ties < 1 else 0.0,
        )
        return None if needed is None else max(0, needed - min(found.sizes))

    # One run more or less of the estimate: a share of 0 or 1 is not the truth.
    least = 1 / (2 * min(found.sizes))
    estimate = min(max(found.estimate, least), 1 - least)
    return {"to_find_gamma": missing(found.gamma), "to_find_estimate": None if estimate == 0.5 else missing(estimate)}


def _facts(
    found: Outperformance, a: np.ndarray, b: np.ndarray, names: tuple[str, str], how: str, metric: str
) -> list[tuple[str, str]]:
    import numpy as np

    interval = found.interval
    facts = [
        ("P(A>B)", f"{found.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}] at {100 * (1 - found.alpha):g} %"),
        ("A wins, B wins, ties", f"{found.wins:.3f}, {found.losses:.3f}, {found.ties:.3f}"),
        ("p-value", f"{found.p_value:.2g} ({'sign test' if found.paired else 'all pairs'})"),
    ]
    for label, name, values in (("A", names[0], a), ("B", names[1], b)):
        with np.errstate(over="ignore"):  # the deviation of huge scores is shown as inf
            spread = f", standard deviation {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
            facts.append((f"{label}: {name}", f"{len(values)} runs, mean {metric} {np.mean(values):.5g}{spread}"))
    facts.append(("runs", how))
    shared = f"correlated by {found.correlation:g}" if found.correlation else "taken as independent"
    return [*facts, ("runs of one system", shared)]


def _advice(found: Outperformance, missing: dict[str, int | None]) -> list[str]:
    lines = []
    if found.verdict in ("not significant", "cannot decide"):
        gamma, estimate = missing["to_find_gamma"], missing["to_find_estimate"]
        worth = f"P(A>B) = {found.gamma:g}, the least that is worth a change"
        if gamma is None:
            lines.append(f"no number of runs finds {worth}, with this correlation: repeat the search, not only runs")
        elif gamma:
            lines.append(f"you need {gamma} more runs of each system to find {worth}, with {_POWER:.0%} probability")
        elif found.verdict == "not significant":
            lines.append(f"these runs are enough: they find {worth}, with {_POWER:.0%} probability")
        if estimate and gamma is not None and abs(found.estimate - 0.5) < found.gamma - 0.5:
            lines.append(f"to find P(A>B) = {found.estimate:.3f}, if it is that, you need {estimate:,} more")
    if not found.correlation:
        lines.append("if the runs of a system share one hyper-parameter search, give --correlation: they are alike")
    return lines


def _show(
    found: Outperformance, names: tuple[str, str], facts: list[tuple[str, str]], advice: list[str], *, stdout: bool
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from taut.cli._terminal import results

    console = results(stdout=stdout)
    better = {"A better": names[0], "B better": names[1]}.get(found.verdict)
    winner = f" ({better})" if better else ""
    console.print(f"[bold]{found.verdict}[/bold]{escape(winner)}: {escape(found.reason)}")
    console.print(escape(ruler(found)))
    about: Any = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts:
        about.add_row(escape(name), escape(value))
    console.print(about)
    for line in advice:
        console.print(escape(line))


def ruler(found: Outperformance) -> str:
    """The interval on a line of text from 0 to 1; | is 1/2, : are gamma and 1 - gamma."""
    width = 60
    line = ["-"] * (width + 1)
    for value, mark in ((found.gamma, ":"), (1 - found.gamma, ":"), (0.5, "|")):
        line[round(width * value)] = mark
    low, high = (round(width * value) for value in (found.interval.low, found.interval.high))
    for index in range(low, high + 1):
        line[index] = {"-": "="}.get(line[index], line[index])
    line[low], line[high] = "[", "]"
    line[round(width * found.estimate)] = "o"
    return f"0 {''.join(line)} 1"


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
