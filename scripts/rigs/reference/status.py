"""The states of services and runs, and every field of the status, from the model."""

import re
from dataclasses import fields
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from cleanroomd.model import status
from cleanroomd.model.status import (
    Finding,
    IsolationStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    Verdict,
    VerdictKind,
)
from rigs.reference.markdown import anchor, bullets, doc_of, page, paragraph, prose

_STATES: dict[type[StrEnum], str] = {
    ServiceState: "States of a service",
    RunState: "States of a run",
    VerdictKind: "Verdicts on a plan",
}
_TABLES: dict[type[Any], str] = {
    Status: "Fields of the status",
    ServiceStatus: "Fields of a service",
    IsolationStatus: "Fields of isolation",
    Verdict: "Fields of a verdict",
    Finding: "Fields of a finding",
}
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def document() -> str:
    parts = []
    for kind, heading in _STATES.items():
        parts += [f"## {heading}", prose(kind.__doc__)]
        parts.append(bullets(f"**`{state}`**: {doc_of(kind, state.name)}" for state in kind))
    for table, heading in _TABLES.items():
        parts += [f"## {heading}", prose(table.__doc__)]
        hints = get_type_hints(table)
        named = [(field.name, hints[field.name]) for field in fields(table)]
        parts.append(bullets(f"**`{name}`** ({_words(hint)}): {_in_json(doc_of(table, name))}" for name, hint in named))
    return page(
        "Status",
        "cleanroomd/model/status.py",
        prose(_in_json(status.__doc__ or "")),
        paragraph(
            "`cleanroomctl status` shows it, `cleanroomctl status --json` prints it as one JSON object with the fields "
            "below, and [Control](control.md) gives and streams it."
        ),
        *parts,
    )


def _words(hint: Any) -> str:
    """What JSON holds there."""
    if get_origin(hint) is tuple:
        return f"list of {_words(get_args(hint)[0])}"
    if isinstance(hint, UnionType):
        return " or ".join("null" if part is NoneType else _words(part) for part in get_args(hint))
    heading = _STATES.get(hint) or _TABLES.get(hint)
    if heading is None:
        return _PLAIN[hint]
    return f"[{heading.lower()}]({anchor(heading)})"


def _in_json(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text)
