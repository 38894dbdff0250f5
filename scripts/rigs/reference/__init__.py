"""What is written from the code: docs/reference/, the manual, message catalogs and completions.

One module for each kind of source or of file.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rigs.reference import catalog, commands, completions, control, journal, manual, plan, printed, status

ROOT = Path(__file__).parents[3]

DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "cleanroomctl.md": commands.cleanroomctl,
    "cleanroomd.md": commands.cleanroomd,
    "control.md": control.document,
    "journal.md": journal.document,
    "json.md": printed.document,
    "plan.md": plan.document,
    "status.md": status.document,
}
"""The reference itself, in Markdown."""

_PLACES = ("docs/reference/*", "docs/man/*", "units/*.catalog", "completions/*")
"""Where nothing else lies."""


def written() -> Mapping[str, str]:
    """Path below the repository -> text, as the code says; the same on every machine and Python."""
    folders = {
        "docs/reference": {name: document() for name, document in DOCUMENTS.items()},
        "docs/man": manual.files(),
        "units": catalog.files(),
        "completions": completions.files(),
    }
    return {f"{folder}/{name}": text for folder, files in folders.items() for name, text in files.items()}


def stale(root: Path) -> list[str]:
    """Paths below `root` that are not what the code says, are missing, or that the code does not write."""
    expected = written()
    found = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in _found(root)}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def write(root: Path) -> None:
    """Make the files below `root` what the code says; others in their places are removed."""
    expected = written()
    for path in _found(root):
        if path.relative_to(root).as_posix() not in expected:
            path.unlink()
    for name, text in expected.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _found(root: Path) -> Iterator[Path]:
    for place in _PLACES:
        yield from root.glob(place)
