"""How far a build is: from the timeline of the build before, or from assumed durations when there is none."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "packages": "fetch the Python packages",
        "debian": "install the common Debian system",
        "boot": "prepare kernel and initial system",
        "record": "install the patient record",
        "record-db": "install the record's database",
        "schema": "create the record's tables",
        "imaging": "install imaging",
        "laboratory": "install the laboratory interface",
        "images": "write the disks",
        "seal": "put the disks in place",
    }
)


@dataclass(frozen=True)
class Progress:
    """What the build does now; `done` runs from 0 to 1, `remaining_seconds` is None while nothing is known."""

    step: str
    done: float
    remaining_seconds: float | None


@dataclass(frozen=True)
class Span:
    """When a step began and ended, in seconds since the build began."""

    begin: float
    end: float


ASSUMED: Mapping[str, Span] = MappingProxyType(
    {
        "packages": Span(0, 15),
        "debian": Span(15, 75),
        "boot": Span(75, 80),
        "record": Span(80, 100),
        "imaging": Span(80, 110),
        "record-db": Span(100, 130),
        "laboratory": Span(110, 120),
        "schema": Span(130, 190),
        "images": Span(190, 230),
        "seal": Span(230, 235),
    }
)
"""A slow two-core machine; only the very first build on a machine relies on it."""


@dataclass
class Timeline:
    """Turns the begin and end of steps into progress; steps may overlap."""

    expected: Mapping[str, Span]
    clock: Callable[[], float] = time.monotonic
    spans: dict[str, Span] = field(default_factory=dict)
    _started: float = field(init=False)
    _running: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @classmethod
    def load(cls, path: Path) -> Self:
        """From the file of an earlier build; a missing or damaged one only costs accuracy."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            expected = {str(name): Span(float(begin), float(end)) for name, (begin, end) in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            expected = {}
        return cls(expected=expected if set(expected) == set(ASSUMED) else ASSUMED)

    def save(self, path: Path) -> None:
        spans = {name: (round(span.begin, 2), round(span.end, 2)) for name, span in self.spans.items()}
        path.write_text(json.dumps(spans, indent=1) + "\n", encoding="utf-8")

    @property
    def elapsed(self) -> float:
        return self.clock() - self._started

    def begin(self, step: str) -> None:
        self._running[step] = self.elapsed

    def end(self, step: str) -> None:
        self.spans[step] = Span(begin=self._running.pop(step), end=self.elapsed)

    def progress(self) -> Progress:
        """Remaining time is what the expected timeline leaves, moved by how late the build is against it."""
        now = self.elapsed
        total = max(span.end for span in self.expected.values())
        late = [span.end - self.expected[name].end for name, span in self.spans.items() if name in self.expected]
        overdue = [now - self.expected[name].end for name in self._running if name in self.expected]
        delay = max([late[-1] if late else 0.0, *overdue])
        remaining = max(1.0, total + delay - now)
        named = self._running or [*self.spans][-1:]
        step = ", ".join(TITLES.get(name, name) for name in named) or "prepare"
        return Progress(step=step, done=now / (now + remaining), remaining_seconds=remaining)
