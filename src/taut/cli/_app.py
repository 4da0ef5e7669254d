"""The commands and what happens to their errors. Rooms that need torch are imported inside the commands."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import typer

from taut.cli._comm import comm
from taut.cli._compare import compare
from taut.cli._compile import compile_
from taut.cli._doctor import doctor
from taut.cli._export import export
from taut.cli._formats import formats
from taut.cli._inspect import inspect
from taut.cli._optimize import optimize
from taut.cli._quantize import quantize
from taut.cli._report import report
from taut.cli._run import run
from taut.cli._schedule import schedule
from taut.cli._study import study
from taut.cli._text import printable
from taut.errors import Interrupted, TautError

INTERNAL_ERROR = 70

app = typer.Typer(
    help="Make deep-learning workloads cheaper, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from taut import __version__

        typer.echo(__version__)
        raise typer.Exit


for command in (optimize, quantize, formats, inspect, run, export, report, compare, doctor):
    app.command()(command)
app.command("compile")(compile_)
app.command()(schedule)
app.add_typer(study, name="study")
app.add_typer(comm, name="comm")


def main() -> None:
    """Run the command line; errors go to standard error, one exit code a kind (see `taut.errors`)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up and keeps results like Ctrl-C
    try:
        app()
    except SystemExit as stop:  # Typer turns Ctrl-C into this, without a word
        if stop.code == Interrupted.exit_code:
            typer.echo("error: stopped", err=True)
        raise
    except TautError as error:
        fail(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("error: stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, e.g. `taut doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("TAUT_DEBUG"):
            traceback.print_exc()
        first = printable((str(error).splitlines() or [""])[0][:500])
        if isinstance(error, MemoryError) or "can't allocate memory" in first:
            typer.echo(f"error: not enough memory: {first}", err=True)
            typer.echo("fix: use smaller batches, or a machine with more memory", err=True)
            sys.exit(TautError.exit_code)
        typer.echo(f"error: a defect in taut: {type(error).__name__}: {first}", err=True)
        typer.echo("fix: run again with TAUT_DEBUG=1 and report what it prints", err=True)
        sys.exit(INTERNAL_ERROR)


def fail(error: TautError) -> None:
    """Print an error for a person."""
    typer.echo(printable(f"error: {error}"), err=True)
