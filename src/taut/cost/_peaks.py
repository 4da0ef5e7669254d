"""What a host can do at best, as numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

from taut.errors import ArgumentError

LEVELS = ("l1", "l2", "l3", "dram")


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """What a family of operators sustains through ATen: `time = overhead + work / per_second`.

    Attributes:
        overhead: seconds a call, however small.
        per_second: floating-point (or integer) operations a second for products, output elements a second for others.
    """

    overhead: float
    per_second: float


@dataclasses.dataclass(frozen=True)
class Peaks:
    """The limits of a host at one thread count.

    Attributes:
        threads: threads that work together.
        flops: operations a second by number format ("fp32", "bf16", "int8"); a multiply-add counts as two.
        bandwidth: bytes read a second by level ("l1", "l2", "l3", "dram"); a level missing on the host is left out.
        cache_bytes: the capacity of "l1", "l2", "l3" that `threads` threads share.
        dispatch: seconds that calling one operator costs, by runner: "eager" (PyTorch) and "interpreter" (taut's).
        rates: what operator families sustain, by "family.format", e.g. "linear.fp32"; see `Roofline`.

    Raises:
        ArgumentError: if a figure is not positive and finite, or no bandwidth or no fp32 peak is given.
    """

    threads: int
    flops: Mapping[str, float]
    bandwidth: Mapping[str, float]
    cache_bytes: Mapping[str, int]
    dispatch: Mapping[str, float]
    rates: Mapping[str, Rate] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        figures: dict[str, float] = {"threads": self.threads}
        for name in ("flops", "bandwidth", "cache_bytes", "dispatch"):
            mapping = getattr(self, name)
            figures |= {f"{name}[{key!r}]": value for key, value in mapping.items()}
            object.__setattr__(self, name, MappingProxyType(dict(mapping)))
        figures |= {f"rates[{key!r}].per_second": rate.per_second for key, rate in self.rates.items()}
        object.__setattr__(self, "rates", MappingProxyType(dict(self.rates)))
        for name, value in figures.items():
            if not (math.isfinite(value) and value > 0):
                raise ArgumentError(name, value, expected="a positive, finite figure")
        for key, rate in self.rates.items():
            if not (math.isfinite(rate.overhead) and rate.overhead >= 0):
                raise ArgumentError(f"rates[{key!r}].overhead", rate.overhead, expected="seconds, 0 or more")
        if "fp32" not in self.flops:
            raise ArgumentError("flops", sorted(self.flops), expected="at least 'fp32'")
        if "dram" not in self.bandwidth or not set(self.bandwidth) <= set(LEVELS):
            raise ArgumentError("bandwidth", sorted(self.bandwidth), expected="'dram' and any of 'l1', 'l2', 'l3'")

    def level(self, working_set: float) -> str:
        """The fastest level of memory that holds that many bytes."""
        for name in LEVELS[:-1]:
            if name in self.bandwidth and working_set <= self.cache_bytes.get(name, 0):
                return name
        return "dram"

    def bytes_per_second(self, working_set: float) -> float:
        """The bandwidth for a working set of that many bytes; it never grows with the working set.

        A larger level that measured faster than a smaller one (noise, or a prefetcher) counts as fast as the smaller.
        """
        held = LEVELS.index(self.level(working_set))
        return min(self.bandwidth[name] for name in LEVELS[: held + 1] if name in self.bandwidth)

    def to_dict(self) -> dict[str, object]:
        """As plain JSON values; `from_dict` is the inverse."""
        return {
            "threads": self.threads,
            "flops": dict(self.flops),
            "bandwidth": dict(self.bandwidth),
            "cache_bytes": dict(self.cache_bytes),
            "dispatch": dict(self.dispatch),
            "rates": {key: [rate.overhead, rate.per_second] for key, rate in self.rates.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Peaks:
        """Peaks from `to_dict`'s values.

        Raises:
            ArgumentError: if a field is missing or has a wrong type.
        """
        try:
            fields = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            rates = {key: Rate(*map(float, pair)) for key, pair in fields.pop("rates").items()}  # pyright: ignore
            return cls(rates=rates, **fields)  # pyright: ignore[reportArgumentType]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError("peaks", dict(values), expected=f"the fields of Peaks ({error!r})") from error
