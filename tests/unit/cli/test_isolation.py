"""`cleanroomctl isolation` against a daemon on a real socket."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cleanroomd.cli.render import NARROWEST
from cleanroomd.cli.render_isolation import verification_lines, view_lines
from cleanroomd.cli.text import width
from cleanroomd.cli.verbs import cli
from cleanroomd.errors import IsolationError
from cleanroomd.model.verification import Denied, Mismatch
from tests.unit.control.fake import VERIFIED, VIEW, FakeEnclosure, served

WRONG = replace(
    VERIFIED,
    ok=False,
    differences=("chain forward of table inet cleanroom, rule 1: accept instead of no rule",),
    surroundings=("table inet firewalld is not ours",),
    mismatches=(Mismatch("imaging", "uplink", "tcp 445 to 192.0.2.10", "it came out at uplink", "chain x, rule 1"),),
    relations=(*VERIFIED.relations[:1], replace(VERIFIED.relations[1], mismatches=1)),
    unnamed=2,
)


@pytest.fixture
def enclosure() -> FakeEnclosure:
    return FakeEnclosure()


@pytest.fixture
def path(enclosure: FakeEnclosure, tmp_path: Path) -> Iterator[Path]:
    with served(enclosure, tmp_path / "control"):
        yield tmp_path / "control"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--socket", str(path), "isolation", *arguments])


def test_show_says_who_may_talk_to_whom(path: Path) -> None:
    result = run(path, "show")
    assert result.exit_code == 0, result.output
    assert "ISOLATED  proven, generation 41" in result.output
    assert "workstations to imaging  tcp 4242, 8042; 12 packets passed" in result.output
    assert "uplink        port, up0; nothing passes to it or from it" in result.output
    assert "3 packets from imaging to uplink" in result.output


def test_a_verification_that_finds_nothing_ends_with_0(path: Path) -> None:
    result = run(path, "verify")
    assert result.exit_code == 0, result.output
    assert "workstations to imaging  tcp 4242, 8042, 2 opened and answered, 93 forbidden" in result.output
    assert "imaging to uplink        nothing may pass, 82 forbidden tried, ok" in result.output
    assert "ISOLATED  the kernel's rules are those of the plan" in result.output


def test_whatever_is_found_is_told_and_ends_with_1(path: Path, enclosure: FakeEnclosure) -> None:
    enclosure.verification = WRONG
    result = run(path, "verify")
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "DIFFERS chain forward of table inet cleanroom, rule 1: accept instead of no rule" in words
    assert "DIFFERS table inet firewalld is not ours" in words
    assert "MISMATCH imaging to uplink: tcp 445 to 192.0.2.10" in words
    assert "it came out at uplink; chain x, rule 1" in words
    assert "and 2 more" in words
    assert "MISMATCHES: 1" in words
    assert "NOT AS PLANNED" in words


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_json_is_the_whole_document(path: Path, enclosure: FakeEnclosure, verb: str) -> None:
    enclosure.verification = WRONG
    result = run(path, verb, "--json")
    document = asdict(VIEW) if verb == "show" else asdict(WRONG)
    assert json.loads(result.output) == json.loads(json.dumps(document))
    assert result.exit_code == {"show": 0, "verify": 1}[verb]


def test_what_cannot_be_verified_ends_with_1(path: Path, enclosure: FakeEnclosure) -> None:
    enclosure.refusal = IsolationError("cannot verify: it took longer than 60 s", "try again")
    result = run(path, "verify")
    assert result.exit_code == 1
    assert result.stderr == "cannot verify: it took longer than 60 s\n  try again\n"


def test_lines_fit_and_nothing_drives_the_terminal() -> None:
    bad = "x" * 70 + " \x1b[31m " + "y" * 50
    view = replace(VIEW, proven=False, problem=bad, denied=(Denied(bad, 1),) * 30, relations=(), foreign_tables=(bad,))
    found = replace(WRONG, differences=(bad,), relations=(replace(WRONG.relations[0], origin=bad),))
    view = replace(view, endpoints=(replace(view.endpoints[1], name="a" * 20),))
    lines = [*view_lines(view, columns=NARROWEST), *verification_lines(replace(found, relations=()), columns=NARROWEST)]
    assert all(width(line.text) <= NARROWEST for line in lines)
    assert all("\x1b" not in line.text for line in [*lines, *verification_lines(found, columns=NARROWEST)])
