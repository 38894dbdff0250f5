"""systemd's message catalog: what `journalctl --catalog` says below each entry of the daemon, in two languages.

The format is that of systemd's "Journal Message Catalogs". Fields between @ are those of the entry: @CLEANROOM_SERVICE@
stands only where every such entry names a service, since an empty field would show by its name.
"""

import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.engine.journal import ADVICE, MESSAGE_IDS, Event
from rigs.reference.markdown import doc_of

_COLUMNS = 80
_FRENCH = Path(__file__).with_name("catalog.fr.toml")


@dataclass(frozen=True, slots=True)
class _Entry:
    subject: str
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class _Language:
    source: str
    """Where a change begins."""
    support: str
    advice: str
    """What comes before the advice."""
    entry: Callable[[Event], _Entry]


_SUBJECTS: Mapping[Event, str] = {
    Event.WAKE_UP: "The daemon looks at everything again",
    Event.STEP: "A step towards the plan",
    Event.STEP_FAILED: "A step could not be done",
    Event.SERVICE: "State of the service @CLEANROOM_SERVICE@",
    Event.RUN: "State of the restoration: @CLEANROOM_STATE@",
    Event.ISOLATION: "State of the isolation",
    Event.OPERATOR: "A request was made",
    Event.ADOPTED: "@CLEANROOM_SERVICE@ ran on without the daemon",
    Event.DAEMON: "State of the daemon",
}


def files() -> Mapping[str, str]:
    return {f"cleanroomd{suffix}.catalog": "\n".join(_lines(language)) for suffix, language in _LANGUAGES.items()}


def _english(event: Event) -> _Entry:
    return _Entry(_SUBJECTS[event], doc_of(Event, event.name), ADVICE[event])


def _french(event: Event) -> _Entry:
    return _Entry(**tomllib.loads(_FRENCH.read_text(encoding="utf-8"))[event.value])


_LANGUAGES: Mapping[str, _Language] = {
    "": _Language("cleanroomd/engine/journal.py", "whoever staged this enclosure", "What to do: ", _english),
    ".fr": _Language(
        "scripts/rigs/reference/catalog.fr.toml", "la personne qui a préparé ce caisson", "À faire : ", _french
    ),
}


def _lines(language: _Language) -> Iterator[str]:
    yield f"# Written by scripts/reference from {language.source}: change it there."
    for event in Event:
        entry = language.entry(event)
        yield ""
        yield f"-- {MESSAGE_IDS[event]}"
        yield f"Subject: {entry.subject}"
        yield "Defined-By: cleanroomd"
        yield f"Support: {language.support}"
        yield "Documentation: man:cleanroomd(8)"
        yield ""
        yield from _paragraph(entry.meaning)
        yield ""
        yield from _paragraph(f"{language.advice}{entry.advice}")
    yield ""


def _paragraph(text: str) -> list[str]:
    """French keeps its marks on the line of the word before them."""
    kept = text.replace(" :", "\0:").replace(" ;", "\0;").replace("« ", "«\0").replace(" »", "\0»")
    filled = textwrap.wrap(kept, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in filled]
