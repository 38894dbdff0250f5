"""The kinds of entry of the run journal, from the engine's table."""

from cleanroomd.engine import journal
from cleanroomd.engine.journal import ADVICE, MESSAGE_IDS, Event
from rigs.reference.markdown import bullets, doc_of, page, paragraph, prose


def document() -> str:
    return page(
        "The run journal",
        "cleanroomd/engine/journal.py",
        prose(journal.__doc__),
        paragraph(
            "`cleanroomctl log` shows it; with `--json`, one [journal entry](json.md#journal-entry) in each line."
        ),
        "## Events",
        paragraph(
            "`journalctl --catalog` shows what follows below each entry, in English or French, where "
            "units/cleanroomd.catalog and units/cleanroomd.fr.catalog are installed in /usr/lib/systemd/catalog."
        ),
        bullets(
            f"**`{event}`** (`MESSAGE_ID={MESSAGE_IDS[event]}`): {doc_of(Event, event.name)} "
            f"What to do: {ADVICE[event]}"
            for event in Event
        ),
    )
