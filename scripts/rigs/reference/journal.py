"""The kinds of entry of the run journal, from the engine's table."""

from cleanroomd.engine import journal
from cleanroomd.engine.journal import MESSAGE_IDS, Event
from rigs.reference.markdown import bullets, doc_of, page, paragraph, prose


def document() -> str:
    return page(
        "The run journal",
        "cleanroomd/engine/journal.py",
        prose(journal.__doc__),
        paragraph("`cleanroomctl log` shows it; with `--json`, entry by entry as [Control](control.md) gives them."),
        "## Events",
        bullets(f"**`{event}`** (`MESSAGE_ID={MESSAGE_IDS[event]}`): {doc_of(Event, event.name)}" for event in Event),
    )
