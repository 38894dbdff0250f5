"""The states of services and runs, and every field of the status, from the model."""

from enum import StrEnum
from typing import Any

from cleanroomd.model import status
from cleanroomd.model.status import (
    Alarm,
    Finding,
    IsolationStatus,
    LeaseStatus,
    PortState,
    PortStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    Verdict,
    VerdictKind,
    WindowStatus,
)
from rigs.reference.markdown import anchor, page, paragraph, prose
from rigs.reference.shapes import field_bullets, in_json, title, word_bullets

_STATES: dict[type[StrEnum], str] = {
    ServiceState: "States of a service",
    RunState: "States of a run",
    PortState: "States of a port",
    VerdictKind: "Verdicts on a plan",
}
_TABLES: dict[type[Any], str] = {
    Status: "Fields of the status",
    ServiceStatus: "Fields of a service",
    IsolationStatus: "Fields of isolation",
    PortStatus: "Fields of a port",
    LeaseStatus: "Fields of a lease",
    WindowStatus: "Fields of a window",
    Alarm: "Fields of an alarm",
    Verdict: "Fields of a verdict",
    Finding: "Fields of a finding",
}
HEADINGS = {title(kind): heading for kind, heading in {**_STATES, **_TABLES}.items()}
"""What a kind is called -> the heading under which it is explained."""


def document() -> str:
    parts = []
    for kind, heading in _STATES.items():
        parts += [f"## {heading}", prose(kind.__doc__), word_bullets(kind)]
    for table, heading in _TABLES.items():
        parts += [f"## {heading}", prose(table.__doc__), field_bullets(table, _link)]
    return page(
        "Status",
        "cleanroomd/model/status.py",
        prose(in_json(status.__doc__ or "")),
        paragraph(
            "`cleanroomctl status` shows it, `cleanroomctl status --json` prints it as one JSON object with the fields "
            "below, and [Control](control.md) gives and streams it."
        ),
        *parts,
    )


def _link(called: str) -> str:
    heading = HEADINGS[called]
    return f"[{heading.lower()}]({anchor(heading)})"
