"""What is written from the code is what the code says: reference, manual, catalogs and completions."""

import functools
from enum import StrEnum
from pathlib import Path

import pytest

from cleanroomd.plan.jsonschema import json_schema
from rigs import reference
from rigs.reference import markdown


def test_the_files_are_what_the_code_says() -> None:
    assert reference.stale(reference.ROOT) == [], "run scripts/reference"


def test_a_file_that_differs_is_missing_or_is_of_nothing_is_named(tmp_path: Path) -> None:
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []
    ours = tmp_path / "units" / "cleanroomd.service"
    ours.write_text("by hand")
    folder = tmp_path / "docs" / "reference"
    (folder / "status.md").write_text("as it was last year\n")
    (folder / "plan.md").unlink()
    (folder / "left-over.md").write_text("")
    (tmp_path / "docs" / "man" / "cleanroomctl-destroy.1").write_text("")
    assert reference.stale(tmp_path) == [
        "docs/man/cleanroomctl-destroy.1",
        "docs/reference/left-over.md",
        "docs/reference/plan.md",
        "docs/reference/status.md",
    ]
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []
    assert ours.read_text() == "by hand"


def test_every_key_of_every_table_is_there() -> None:
    """Tables within tables included, however deep, and whatever is added to the plan."""
    text = reference.DOCUMENTS["plan.md"]()
    tables = [table for table in json_schema()["$defs"].values() if "properties" in table]
    keys = [(key, node["description"]) for table in tables for key, node in table["properties"].items()]
    flowed = " ".join(text.split())
    assert flowed.count("- **`") == len(keys)
    for key, description in keys:
        assert f"**`{key}`**" in flowed
        assert description in flowed


@pytest.mark.parametrize("name", reference.DOCUMENTS)
def test_no_line_is_too_long(name: str) -> None:
    text = reference.DOCUMENTS[name]()
    assert max(map(len, text.splitlines())) <= markdown.COLUMNS
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", reference.DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    targets = [part.partition(")")[0].partition("#") for part in reference.DOCUMENTS[name]().split("](")[1:]]
    for file, _, fragment in targets:
        assert not file or (reference.ROOT / "docs" / "reference" / file).exists()
        assert not fragment or f"#{fragment}" in anchors(file or name)


@functools.cache
def anchors(name: str) -> set[str]:
    lines = reference.DOCUMENTS[name]().splitlines()
    return {markdown.anchor(line.lstrip("# ")) for line in lines if line.startswith("#")}


@pytest.mark.parametrize("name", reference.DOCUMENTS)
def test_no_two_headings_have_one_anchor(name: str) -> None:
    headings = [
        line.lstrip("# ") for line in reference.DOCUMENTS[name]().splitlines() if line.startswith(("## ", "### "))
    ]
    assert len({markdown.anchor(heading) for heading in headings}) == len(headings)


def test_anchors_are_those_of_the_usual_servers() -> None:
    assert markdown.anchor("`match` in `[ports.NAME]`") == "#match-in-portsname"
    assert markdown.anchor("Kinds of value") == "#kinds-of-value"


class Lamp(StrEnum):
    LIT = "lit"
    """It gives light,
    or would."""
    DARK = "dark"


def test_a_name_has_the_text_below_it() -> None:
    assert markdown.doc_of(Lamp, "LIT") == "It gives light, or would."


def test_a_name_that_nobody_explained_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"Lamp\.DARK"):
        markdown.doc_of(Lamp, "DARK")


def test_code_stays_on_one_line() -> None:
    """`x = 1` split in two would not be found by who searches for it."""
    text = markdown.paragraph(f"{'word ' * 22}`key = [1, 2, 3, 4]` and so on")
    assert "\n`key = [1, 2, 3, 4]` and so on" in text
