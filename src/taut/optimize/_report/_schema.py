"""What `report.json` holds: every figure of the report, measured and modelled apart.

The models are frozen and strict: a field that is missing, unknown, of another type or not finite is refused, so that a
report out of an untrusted bundle either loads whole or gives a typed error. A ratio is always *baseline time divided by
candidate time*: above 1 is faster. Times are seconds, sizes bytes, confidences fractions.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from taut.errors import ArtefactError, TruncatedError, VersionError

FORMAT_VERSION = 1
_LARGEST_TEXT = 32 * 2**20  # characters; a real report is well below 1 MB
_DEEPEST = 16
_LARGEST_INTEGER = 2**63 - 1  # Python refuses to print integers of many thousand digits

Verdict = Literal["faster", "no evidence", "slower"]
CandidateStatus = Literal["kept", "rejected", "not_applicable", "not_tried", "peer"]


def _without_surrogates(value: object) -> object:
    # A file name that is not UTF-8 reaches Python with lone surrogates, which no JSON or HTML file can hold.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _plain_json(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"an integer beyond {_LARGEST_INTEGER}")
    if isinstance(value, dict):
        return {_without_surrogates(key): _plain_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item, depth + 1) for item in value]
    return _without_surrogates(value)


Text = Annotated[str, BeforeValidator(_without_surrogates)]
Seconds = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0)]
Confidence = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]
Threads = Annotated[int, Field(ge=1, le=_LARGEST_INTEGER)]
JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(_plain_json)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Interval(_Record):
    """A confidence interval; a bound of None is unknown or unbounded."""

    low: float | None
    high: float | None
    confidence: Confidence | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Comparison(_Record):
    """A measured paired comparison; `ratio` is baseline time over candidate time.

    Attributes:
        ratio: speed-up, above 1 when the candidate is faster; `low` and `high` bound it at `confidence`.
        pairs: interleaved pairs behind it.
        baseline_seconds: per call; `candidate_seconds` likewise.
        clock: "wall" or "cpu", as the measurement says.
        baseline_threads: threads of either arm, or None where they are those of the run.
    """

    ratio: Ratio
    low: Ratio | None
    high: Ratio | None
    confidence: Confidence
    verdict: Verdict
    pairs: Count
    baseline_seconds: Seconds
    candidate_seconds: Seconds
    clock: Text
    baseline_threads: Threads | None = None
    candidate_threads: Threads | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Quality(_Record):
    """Quality of one candidate on the held-out samples; `change` is candidate minus baseline."""

    baseline: float
    candidate: float
    change: Interval | None
    within_limit: bool


class Candidate(_Record):
    """One technique that the job considered, alone or on top of others.

    Attributes:
        name: the pass, e.g. "int8_linear"; `title` is for people.
        on_top_of: names of what was already applied when it was measured.
        reason: why this decision, with its figure.
        predicted: modelled speed-up over what it stands on; never a measurement.
        comparison: measured against what it stands on.
        change_summary: what the pass changed, e.g. "36 of 38 linear layers".
        stored_bytes: of all parameters and buffers, with it.
    """

    name: Text
    title: Text
    options: JsonObject = Field(default_factory=dict)
    on_top_of: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    status: CandidateStatus
    reason: Text
    predicted: Ratio | None = None
    comparison: Comparison | None = None
    quality: Quality | None = None
    change_summary: Text | None = None
    stored_bytes: Count | None = None


class ModelSummary(_Record):
    """The model as it came; `macs` are at the example sizes."""

    name: Text
    source: Text
    parameters: Count | None = None
    nodes: Count | None = None
    macs: Count | None = None


class DataSummary(_Record):
    """The data that quality and time were measured on."""

    samples: Count
    batches: Count
    source: Text


class Metric(_Record):
    """The quality metric over the whole job; `change` bounds final minus baseline."""

    name: Text
    higher_is_better: bool
    baseline: float | None
    final: float | None = None
    change: Interval | None = None


class Baseline(_Record):
    """Eager PyTorch at one thread count; `chosen` marks the best, which everything is compared with."""

    threads: Threads
    seconds_per_call: Seconds
    chosen: bool = False


class SizeBytes(_Record):
    """Bytes of the parameters and buffers."""

    before: Count | None
    after: Count | None


class OperatorTime(_Record):
    """Seconds per call in one operator of one module, before and after."""

    module_path: Text
    op: Text
    before_seconds: Seconds | None = None
    after_seconds: Seconds | None = None


class Layer(_Record):
    """One weight of the result: how it is stored, and what that does to it.

    Attributes:
        path: the layer's module path.
        kind: "linear", "convolution" or "embedding".
        format: the number format of the weight, as `taut formats` names it; "float32" where it stays as it was.
        runs: how it is computed: by a kernel from the stored bits, in float32 on the decoded weight, or unchanged.
        elements: number of weights.
        bytes_before: of the weight; `bytes_after` likewise, with scales and what the kernel adds.
        sqnr_db: signal to quantisation noise of the weight in decibels; None where it is unchanged.
        error: what the output loses, measured, when this layer alone is quantised: squared error over squared size.
    """

    path: Text
    kind: Text
    format: Text
    runs: Literal["kernel", "emulated", "unchanged"]
    elements: Count
    bytes_before: Count
    bytes_after: Count
    sqnr_db: float | None = None
    error: Annotated[float, Field(ge=0)] | None = None

    @property
    def bits(self) -> float:
        """Stored bits a weight."""
        return 8 * self.bytes_after / self.elements if self.elements else 0.0


class RecipeStep(_Record):
    """One pass of the recipe, in order."""

    name: Text
    options: JsonObject = Field(default_factory=dict)


class Recipe(_Record):
    """What to replay: the passes in order, the thread count, and the command that does it.

    Attributes:
        prepared: what was done to the weights with data, so that the passes alone do not make the model again.
    """

    steps: Annotated[tuple[RecipeStep, ...], Field(strict=False)] = ()
    threads: Threads | None = None
    prepared: Annotated[tuple[Literal["calibrated", "fine-tuned"], ...], Field(strict=False)] = ()
    command: Text | None = None


class Report(_Record):
    """The whole report of one job.

    Attributes:
        job: the command that wrote it.
        created: ISO 8601 date and time.
        partial_reason: why a partial report ends where it ends.
        max_drop: quality that may be lost: a fraction of the baseline value when `max_drop_kind` is "relative", else in
            the metric's own unit; None where no limit was set.
        headline: final against best eager, measured; None where nothing was kept or it was not measured.
        layers: the weights of the result, where any is quantised.
        host: the host fingerprint, as plain JSON; `quietness` is how quiet the machine was.
    """

    format_version: Count = FORMAT_VERSION
    taut_version: Text
    job: Literal["optimize", "quantize"] = "optimize"
    created: Text
    status: Literal["complete", "partial"]
    partial_reason: Text | None = None
    model: ModelSummary
    goal: Text
    max_drop: float | None = None
    max_drop_kind: Literal["relative", "absolute"] = "relative"
    budget_seconds: Seconds | None = None
    spent_seconds: Seconds | None = None
    data: DataSummary | None = None
    metric: Metric | None = None
    baselines: Annotated[tuple[Baseline, ...], Field(strict=False)] = ()
    headline: Comparison | None = None
    size_bytes: SizeBytes | None = None
    candidates: Annotated[tuple[Candidate, ...], Field(strict=False)] = ()
    operators: Annotated[tuple[OperatorTime, ...], Field(strict=False)] = ()
    layers: Annotated[tuple[Layer, ...], Field(strict=False)] = ()
    host: JsonObject = Field(default_factory=dict)
    quietness: JsonObject = Field(default_factory=dict)
    warnings: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    recipe: Recipe = Field(default_factory=Recipe)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a report of any origin.

        Raises:
            TruncatedError: the text ends in the middle.
            VersionError: it was written in a newer format.
            ArtefactError: it is not a report.
        """
        if len(text) > _LARGEST_TEXT:
            raise ArtefactError(
                f"report.json has {len(text)} characters", expected=f"at most {_LARGEST_TEXT}", fix=_FIX
            )
        try:
            version = _Version.model_validate_json(text).format_version
            if version > FORMAT_VERSION:
                raise VersionError(
                    f"report.json: format {version} was written by a newer taut",
                    expected=f"format {FORMAT_VERSION} or older",
                    fix="upgrade taut",
                )
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _as_artefact_error(error) from None

    def to_json(self) -> str:
        """The report as indented JSON text, lossless through `from_json`."""
        return self.model_dump_json(indent=1)


class _Version(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    format_version: Annotated[int, Field(ge=1, le=_LARGEST_INTEGER)]


_FIX = "run `taut optimize` again, or take the bundle from its source again"


def _as_artefact_error(error: ValidationError) -> ArtefactError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"])[:200] or "the text"
    message = f"report.json: {place}: {first['msg'][:300]}"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    if first["type"] == "json_invalid" and "EOF" in first["msg"]:
        return TruncatedError(message, expected="a complete JSON document", fix=_FIX)
    return ArtefactError(message, expected=f"a taut report of format {FORMAT_VERSION}", fix=_FIX)
