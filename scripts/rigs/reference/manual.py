"""The manual pages: the texts of the reference, a page for each verb, each program and the plan file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass

import click

from cleanroomd import __version__, daemon
from cleanroomd.cli.documents import Failure
from cleanroomd.cli.verbs import DEFAULT_SOCKET, cli
from rigs.reference import commands, plan
from rigs.reference.commands import document_of, exits, options, top, verbs
from rigs.reference.markdown import bullets, paragraph, prose
from rigs.reference.printed import PROMISE, UNITS
from rigs.reference.roff import convert, escape
from rigs.reference.shapes import field_bullets, kinds_within, title, word_bullets

_PLAN = "cleanroom-plan.5"
_DAEMON = "cleanroomd.8"
_KEEPER = "cleanroom-keeper.8"
_FILES: Mapping[str, str] = {
    "/run/cleanroom/control": "The control socket, which `cleanroomctl` talks to.",
    "/run/cleanroom/keeper": "The keeper's socket.",
    "/var/lib/cleanroom/plan.toml": "The recovery plan.",
    "/var/lib/cleanroom/vault/": "Images of the machines' disks; only read.",
    "/var/lib/cleanroom/crisis/": "What the machines wrote since; the only copy of it.",
    "/var/lib/cleanroom/state/journal.jsonl": "The run journal, one JSON object in each line.",
}
"""As the units place them."""


@dataclass(frozen=True, slots=True)
class _Page:
    file: str
    """ "cleanroomd.8" """
    does: str
    """What it is for, in half a sentence."""
    parts: Sequence[str]
    """Markdown; headings of the second rank are the sections of the page."""
    related: Sequence[str]
    """Other pages, as `file` has them."""

    def text(self) -> str:
        name, section = _split(self.file)
        # Without a date: it would be that of the last change of the code, which the code does not know.
        heading = f'.TH {escape(name.upper())} {section} "" "cleanroomd {__version__}" "Recovery enclosure"'
        others = [_split(page) for page in self.related]
        related = [f".BR {escape(other)} ({number})" for other, number in others]
        return "\n".join(
            [
                '.\\" Written by scripts/reference from the code: change it there.',
                heading,
                ".SH NAME",
                f"{escape(name)} \\- {escape(self.does)}",
                convert("\n\n".join(filter(None, self.parts))).rstrip(),
                ".SH SEE ALSO",
                " ,\n".join(related),
                "",
            ]
        )


def files() -> Mapping[str, str]:
    program = top(cli, "cleanroomctl")
    pages = [*map(_verb, [program, *verbs(program)]), _daemon(), _keeper(), _plan()]
    return {page.file: page.text() for page in pages}


def _verb(verb: click.Context) -> _Page:
    below = [_file(other) for other in verbs(verb) if other.parent is verb]
    above = [_DAEMON] if verb.parent is None else [_file(verb.parent)]
    return _Page(
        file=_file(verb),
        does=_half(verb.command),
        parts=(
            "## Synopsis",
            commands.synopsis(verb),
            "## Description",
            prose(verb.command.help),
            *(["## Commands", _below(verb)] if below else []),
            *(["## Options", options(verb)] if options(verb) else []),
            *_printed(verb.command),
            "## Exit status",
            bullets(f"**{number}**: {meaning}" for number, meaning in exits().items()),
            *(_environment() if verb.parent is None else []),
        ),
        related=(*above, *below, *([_PLAN] if "plan" in verb.command_path else [])),
    )


def _below(group: click.Context) -> str:
    verbs_below = (verb for verb in verbs(group) if verb.parent is group)
    return bullets(f"**{verb.info_name}**: {verb.command.get_short_help_str(limit=200)}" for verb in verbs_below)


def _printed(command: click.Command) -> Iterator[str]:
    document = document_of(command)
    if document is None:
        return
    yield "## JSON"
    yield paragraph(
        f"With `--json` it prints one {title(document)} as a JSON object in one line, and one {title(Failure)} in its "
        f"place when the answer is that it cannot be done. {UNITS} {PROMISE}"
    )
    for kind in [*kinds_within(document), *kinds_within(Failure)]:
        yield f"### {title(kind).capitalize()}"
        yield prose(kind.__doc__)
        yield field_bullets(kind, str) if is_dataclass(kind) else word_bullets(kind)


def _environment() -> Iterator[str]:
    yield "## Environment"
    yield bullets(["`CLEANROOM_CONTROL`: Where `cleanroomd` answers, unless `--socket` says so."])
    yield "## Files"
    yield bullets([f"`{DEFAULT_SOCKET}`: {_FILES[DEFAULT_SOCKET]}"])


def _daemon() -> _Page:
    context = top(daemon.main, "cleanroomd")
    parts = [
        *("## Synopsis", commands.synopsis(context)),
        *("## Description", prose(daemon.main.help)),
        *("## Options", options(context)),
        *("## Signals", commands.daemon_signals()),
        *("## Exit status", commands.daemon_exits()),
        *("## Files", bullets(f"`{path}`: {what}" for path, what in _FILES.items())),
    ]
    return _Page(_DAEMON, "restores critical care services, isolated", parts, ("cleanroomctl.1", _KEEPER, _PLAN))


def _keeper() -> _Page:
    synopsis, description, listed = commands.keeper_parts()
    parts = ["## Synopsis", synopsis, "## Description", description, "## Options", listed]
    return _Page(_KEEPER, "keeps the firewall's rules in force", parts, (_DAEMON,))


def _plan() -> _Page:
    """Its headings hold keys of the file, so they stay as they are written: of the third rank, not in capitals."""
    text = re.sub(r"^##+ ", "### ", plan.document(), flags=re.MULTILINE)
    related = ("cleanroomctl-plan-check.1", "cleanroomctl-plan-schema.1", _DAEMON)
    return _Page(_PLAN, "what an enclosure restores, and who may talk to whom", ["## Description", text], related)


def _file(verb: click.Context) -> str:
    return f"{verb.command_path.replace(' ', '-')}.1"


def _half(command: click.Command) -> str:
    """The first sentence of its help without a capital and a full stop, as whatis(1) lists it."""
    sentence = command.get_short_help_str(limit=200).rstrip(".")
    return sentence[0].lower() + sentence[1:]


def _split(file: str) -> tuple[str, str]:
    name, _, section = file.partition(".")
    return name, section
