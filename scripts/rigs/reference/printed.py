"""What every command prints with --json, from the type that each declares."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from cleanroomd.cli.documents import Failure, PlanCheck
from cleanroomd.cli.verbs import cli
from rigs.reference.commands import document_of, top, verbs
from rigs.reference.markdown import anchor, bullets, page, paragraph, prose
from rigs.reference.shapes import PROBE, field_bullets, kinds_within, title, word_bullets
from rigs.reference.status import HEADINGS

UNITS = "Sizes are bytes and durations seconds; instants are CLOCK_BOOTTIME seconds unless they say Unix time."
PROMISE = (
    "Names, types and meanings do not change and nothing is taken away, but fields are added: a program passes over "
    "those that it does not know."
)


def document() -> str:
    printed = {
        verb.command_path: kind for verb in verbs(top(cli, "cleanroomctl")) if (kind := document_of(verb.command))
    }
    return page(
        "What `--json` prints",
        "cleanroomd/cli/documents.py and the types that it names",
        paragraph(f"One JSON object in one line, in ASCII. {UNITS} {PROMISE}"),
        bullets(f"`{command} --json`: {_link(title(kind))}" for command, kind in printed.items()),
        paragraph(
            "`status --watch` and `log` print one such object in each line. `plan show` prints a "
            f"{_link(title(PlanCheck))} when the plan has problems. `plan schema` prints nothing but JSON, with or "
            "without that option: the schema of plan files, by the rules of json-schema.org. What cannot be done is a "
            f"{_link(title(Failure))}; a wrong command line is told as text on standard error."
        ),
        *_tables([Failure, *printed.values()]),
    )


def _tables(documents: list[type[Any]]) -> Iterator[str]:
    """A section for each kind that the reference of the status does not explain."""
    kinds = dict.fromkeys(kind for document in documents for kind in kinds_within(document))
    here = [kind for kind in kinds if title(kind) not in HEADINGS]
    probes = [kind for kind in here if title(kind).endswith(f" {PROBE}")]
    for kind in here:
        if kind is probes[0]:
            yield f"## {PROBE.capitalize()}"
            yield paragraph(f"`protocol` says which it is: {', '.join(_link(title(probe)) for probe in probes)}.")
        yield f"## {title(kind).capitalize()}"
        yield prose(kind.__doc__)
        yield field_bullets(kind, _link) if is_dataclass(kind) else word_bullets(kind)


def _link(called: str) -> str:
    if called in HEADINGS:
        return f"[{called}](status.md{anchor(HEADINGS[called])})"
    return f"[{called}]({anchor(called)})"
