"""The exceptions of taut.

TautError                   anything taut raises on purpose            exit 1
├── ArgumentError           an argument or option has a wrong value    exit 2
├── MissingExtraError       an optional dependency is not installed    exit 2
├── ModelError              the user's model could not be used         exit 3
│   ├── ModelLoadError      not found, not importable, factory raised
│   └── ExportError         torch.export refused it
├── GraphError              a graph is malformed                       exit 3
│   ├── GuardError          an input violates a shape guard
│   └── ScheduleError       a schedule does not fit its graph
├── DataError               samples, labels or a metric do not fit     exit 4
├── MeasurementError        a measurement cannot carry the claim       exit 4
├── TransformError          a pass could not be applied                exit 4
│   ├── EmptyChangeError    a pass changed nothing
│   └── QualityError        its result loses more than allowed
├── KernelError             a native kernel refused its arguments      exit 4
├── CommunicationError      ranks of a job could not exchange          exit 4
├── BuildError              kernels could not be generated or linked   exit 4
├── ArtefactError           an artefact cannot be read                 exit 5
│   ├── TamperedError       its content does not match its manifest
│   ├── TruncatedError      a file is missing or cut short
│   └── VersionError        it was written by a newer version
├── StorageError            a file could not be written                exit 6
└── Interrupted             the user stopped the work                  exit 130
"""

from __future__ import annotations

from typing import ClassVar


class TautError(Exception):
    """Anything that taut raises on purpose.

    Args:
        message: what was wrong and where, in one sentence.
        expected: what would have been accepted.
        fix: what the user can do about it.

    Attributes:
        result: what was finished before the error, if anything.
    """

    exit_code: ClassVar[int] = 1
    result: object = None

    def __init__(self, message: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.message = message
        self.expected = expected
        self.fix = fix
        super().__init__(message)

    def __str__(self) -> str:
        lines = [self.message]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class ArgumentError(TautError, ValueError):
    """An argument or option has a wrong value.

    Args:
        name: the argument as the user wrote it, e.g. `--budget` or `max_drop`.
        value: what was given.
        expected: what would have been accepted.
        fix: what the user can do about it.
    """

    exit_code = 2

    def __init__(self, name: str, value: object, *, expected: str, fix: str | None = None) -> None:
        self.name = name
        self.value = value
        text = repr(value)
        shown = text if len(text) <= 200 else text[:197] + "..."
        super().__init__(f"{name}: got {shown}", expected=expected, fix=fix)


class MissingExtraError(TautError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed",
            fix=f"pip install -c constraints.txt 'taut[{extra}]'",
        )


class ModelError(TautError):
    """The user's model could not be used."""

    exit_code = 3


class ModelLoadError(ModelError):
    """The model was not found, could not be imported, or its factory raised."""


class ExportError(ModelError):
    """`torch.export` refused the model."""


class GraphError(TautError):
    """A graph is malformed."""

    exit_code = 3


class GuardError(GraphError, ValueError):
    """An input violates a shape guard of the graph."""


class ScheduleError(GraphError, ValueError):
    """A schedule does not fit its graph."""


class DataError(TautError, ValueError):
    """Samples, labels or a metric do not fit the model."""

    exit_code = 4


class MeasurementError(TautError):
    """A measurement cannot carry the claim."""

    exit_code = 4


class TransformError(TautError):
    """A pass could not be applied."""

    exit_code = 4


class EmptyChangeError(TransformError):
    """A pass changed nothing."""


class QualityError(TransformError):
    """A result loses more quality than was allowed."""


class KernelError(TautError, ValueError):
    """A native kernel refused its arguments."""

    exit_code = 4


class CommunicationError(TautError, RuntimeError):
    """Ranks of a training job could not exchange what they had to."""

    exit_code = 4


class BuildError(TautError):
    """Kernels could not be generated or linked on this host."""

    exit_code = 4


class ArtefactError(TautError):
    """An artefact cannot be read."""

    exit_code = 5


class TamperedError(ArtefactError):
    """The content of an artefact does not match its manifest."""


class TruncatedError(ArtefactError):
    """A file of an artefact is missing or cut short."""


class VersionError(ArtefactError):
    """An artefact was written by a newer version of taut."""


class StorageError(TautError, OSError):
    """A file could not be written."""

    exit_code = 6


class Interrupted(TautError):  # noqa: N818 - an interruption is not an error of the user's
    """The user stopped the work."""

    exit_code = 130
