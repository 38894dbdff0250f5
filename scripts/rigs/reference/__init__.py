"""The reference in docs/reference/, written from the code: one module for each kind of source."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rigs.reference import commands, control, journal, plan, status

FOLDER = Path(__file__).parents[3] / "docs" / "reference"

DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "cleanroomctl.md": commands.cleanroomctl,
    "cleanroomd.md": commands.cleanroomd,
    "control.md": control.document,
    "journal.md": journal.document,
    "plan.md": plan.document,
    "status.md": status.document,
}


def documents() -> Mapping[str, str]:
    """File name -> text, as the code says; the same on every machine and Python."""
    return {name: document() for name, document in DOCUMENTS.items()}


def stale(folder: Path) -> list[str]:
    """Names of the files of `folder` that are not what the code says, are missing, or are of no document."""
    expected = documents()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def write(folder: Path) -> None:
    """Make `folder` what the code says; a file of no document is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = documents()
    for path in folder.glob("*"):
        if path.name not in expected:
            path.unlink()
    for name, text in expected.items():
        (folder / name).write_text(text, encoding="utf-8")
