"""What a benchmark prints: one figure with its spread, and what it is held against."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the repeats of one figure."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a benchmark. `goal` bounds the ratio where there is a peer, else the value."""

    name: str
    unit: str
    spread: Spread
    runs: int
    against: str = ""
    against_value: float | None = None
    goal: float | None = None

    @property
    def value(self) -> float:
        return self.spread.median

    @property
    def ratio(self) -> float | None:
        return self.value / self.against_value if self.against_value else None

    @property
    def meets(self) -> bool | None:
        """None where no goal is set."""
        if self.goal is None:
            return None
        return (self.value if self.ratio is None else self.ratio) <= self.goal

    def to_json(self) -> str:
        document: dict[str, object] = {
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "spread": {
                "min": _short(self.spread.minimum),
                "median": _short(self.spread.median),
                "max": _short(self.spread.maximum),
            },
            "runs": self.runs,
        }
        if self.against_value is not None and self.ratio is not None:
            document |= {
                "against": self.against,
                "against_value": _short(self.against_value),
                "ratio": _short(self.ratio),
            }
        if self.goal is not None:
            document |= {"goal": self.goal, "meets": self.meets}
        return json.dumps(document)

    def to_line(self) -> str:
        spread = f"{_short(self.spread.minimum)}..{_short(self.spread.maximum)}"
        text = f"{self.name:<28} {_short(self.value):>10} {self.unit:<5} ({spread}, {self.runs} runs)"
        if self.against_value is not None and self.ratio is not None:
            text += f"; {self.against} {_short(self.against_value)}, ratio {_short(self.ratio)}"
        if self.goal is not None:
            text += f"; goal {self.goal}: {'met' if self.meets else 'MISSED'}"
        return text


def interleave(work: Mapping[str, Callable[[], float]], *, runs: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Call each of `work` in turn, round after round, so that what else the machine does touches all alike.

    Each call returns its own measurement; those of the first `warm_up` rounds are thrown away.
    """
    found: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(warm_up + runs):
        for name, measure in work.items():
            value = measure()
            if round_number >= warm_up:
                found[name].append(value)
    return found


def _short(value: float) -> float:
    """Four significant digits: more than any of these measurements is worth."""
    return float(f"{value:.4g}")
