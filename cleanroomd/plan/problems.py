"""What is wrong with a plan, in words that say where it is and what to write instead."""

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cleanroomd.errors import CleanroomError

Loc = tuple[str | int, ...]
"""A place in the document: ("service", 2, "depends_on")."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")
_QUOTED_AT_MOST = 60
_SUGGESTIONS_AT_MOST = 64
_TOLD_AT_MOST = 20
_LINE_AT_MOST = 400


@dataclass(frozen=True, slots=True)
class Problem:
    path: str
    """`service[2].depends_on`, indices from 0; empty when the file as a whole is meant."""
    line: int | None
    """1-based; None when no line of the file is to blame, as for a section that is missing."""
    message: str

    def __str__(self) -> str:
        place = self.path
        if self.line is not None:
            place = f"{place} (line {self.line})" if place else f"line {self.line}"
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before its line is known."""

    loc: Loc
    message: str
    spot: Loc = ()
    """Where to look for the line, when that is more precise than `loc`."""


class PlanError(CleanroomError):
    """A plan that cannot be used; `problems` has every one that was found, in the order of their lines."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = [f"\n  {problem!s:.{_LINE_AT_MOST}}" for problem in self.problems[:_TOLD_AT_MOST]]
        if more := len(self.problems) - len(lines):
            lines.append(f"\n  and {count(more, 'more problem')}")
        super().__init__(
            f"cannot use the plan {source}: {count(len(self.problems), 'problem')}{''.join(lines)}",
            f"correct the file; `cleanroomctl plan check {source}` shows every problem",
        )


def count(number: int, noun: str) -> str:
    """ "1 service", "3 services"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def quote(untrusted_value: object) -> str:
    """The value as its author wrote it, as near as a terminal can bear: one short line, no controls."""
    match untrusted_value:
        case str():
            return f'"{printable(untrusted_value)}"'
        case bool():
            return "true" if untrusted_value else "false"
        case int():
            # Python refuses to print integers of thousands of digits.
            return str(untrusted_value) if untrusted_value.bit_length() <= 64 else "so large a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return printable(str(untrusted_value))


def printable(untrusted_text: str) -> str:
    """At most 60 characters of a text, without anything that a terminal would obey, or that only looks like a space."""
    shown = untrusted_text[:_QUOTED_AT_MOST]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return safe if len(untrusted_text) <= _QUOTED_AT_MOST else f"{safe}…"


def is_text(character: str) -> bool:
    """Letters, marks, signs and spaces of any script: no control codes, no direction overrides."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def path(document: object, loc: Loc) -> tuple[Loc, str]:
    """`loc` cut where the document ends, and how that reads: `service[2].ready[0].http`.

    A validator's location goes on inside values that the file writes as one scalar; nobody finds those there.
    """
    known: list[str | int] = []
    shown = ""
    here = document
    for part in loc:
        if isinstance(part, int) and isinstance(here, list) and part < len(here):
            shown += f"[{part}]"
            here = here[part]
        elif isinstance(part, str) and isinstance(here, Mapping):
            key = part if _BARE_KEY.fullmatch(part) else quote(part)
            shown += f".{key}" if shown else key
            here = here.get(part)
        else:
            break
        known.append(part)
    return tuple(known), shown


def toml(value: object) -> str:
    """A value of an example, as one would write it in the plan."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
        case _:
            return str(value)


class Suggester:
    """Finds what was meant by a misspelt name, for the first few dozen misspellings of a plan.

    Each search costs milliseconds among thousands of names, and a file with thousands of unknown names was
    not misspelt.
    """

    def __init__(self) -> None:
        self._left = _SUGGESTIONS_AT_MOST

    def __call__(self, untrusted_name: str, known: Iterable[str]) -> str:
        """'; did you mean "imaging"?', or nothing when no name is near."""
        if not self._left or len(untrusted_name) > _QUOTED_AT_MOST:
            return ""
        self._left -= 1
        near = difflib.get_close_matches(untrusted_name, known, n=1)
        return f"; did you mean {quote(near[0])}?" if near else ""
