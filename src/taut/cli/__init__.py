"""The command line: `taut`."""

from taut.cli._app import main

__all__ = ["main"]
