"""What the orchestrator inside the sandbox tells the launcher outside: one JSON document a line."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cleanroomd.model.status import Status
from rigs.report import Act, Report


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts are up; their PID 1 as numbered inside the sandbox."""

    workstation: int
    kind: Literal["hosts"] = "hosts"


@dataclass(frozen=True, slots=True)
class Said:
    """Something begins, in words."""

    text: str
    kind: Literal["said"] = "said"


@dataclass(frozen=True, slots=True)
class Changed:
    status: Status
    kind: Literal["changed"] = "changed"


@dataclass(frozen=True, slots=True)
class Acted:
    act: Act
    kind: Literal["acted"] = "acted"


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over, and this is what came of it."""

    report: Report
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True)
class Failed:
    """The run could not be carried through."""

    message: str
    hint: str
    kind: Literal["failed"] = "failed"


Event = Hosts | Said | Changed | Acted | Ended | Failed
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def encode(event: Event) -> bytes:
    return _ADAPTER.dump_json(event) + b"\n"


def decode(line: bytes) -> Event:
    """The event that `line` spells; ValueError when it spells none."""
    return _ADAPTER.validate_json(line)
