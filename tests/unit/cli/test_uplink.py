"""`cleanroomctl uplink`: what it shows, asks for and waits for."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.cli.outcome import SETTLE, CloseUplink, OpenUplink, Outcome, judge
from cleanroomd.errors import CleanroomError, Exit
from cleanroomd.model.status import LeaseStatus, Status, WindowStatus
from tests.unit.cli.test_verbs import run
from tests.unit.control.fake import STATUS, FakeEnclosure, served

FLOW = "imaging to 192.168.40.10, tcp 2575"
LEASE = LeaseStatus("results", FLOW, STATUS.now - 20, STATUS.now + 580, "claire", "results of the night", "")
WINDOWS = (WindowStatus("results", FLOW, 900.0), WindowStatus("images", "record to 192.168.40.11, tcp 104", 600.0))


def uplink(*leases: LeaseStatus, words: str = "dark") -> Status:
    return replace(STATUS, isolation=replace(STATUS.isolation, uplink=words, leases=leases, windows=WINDOWS))


OPEN = uplink(LEASE, words="open for results")
DARK = uplink()


@pytest.fixture
def enclosure() -> FakeEnclosure:
    return FakeEnclosure(DARK)


@pytest.fixture
def path(enclosure: FakeEnclosure, tmp_path: Path) -> Iterator[Path]:
    with served(enclosure, tmp_path / "control"):
        yield tmp_path / "control"


def test_the_uplink_is_shown_with_author_reason_and_what_is_left(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.current = OPEN
    shown = run(path, "uplink").stdout
    assert "Uplink: open for results" in shown
    assert f"results  {FLOW}; closes by itself in 9 min 40 s" in shown
    assert "opened by claire 20 s ago: results of the night" in shown
    assert "images  record to 192.168.40.11, tcp 104; for 10 min 00 s at most" in shown


def test_a_dark_uplink_says_what_could_be_opened(path: Path) -> None:
    shown = run(path, "uplink").stdout
    assert shown.startswith("Uplink: dark")
    assert "results" in shown.partition("Can be opened:")[2]


def test_the_document(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.current = OPEN
    document = json.loads(run(path, "uplink", "--json").stdout)
    assert document["uplink"] == "open for results"
    assert document["leases"][0]["until"] == STATUS.now + 580


def test_opening_asks_and_waits_until_it_is_open(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [OPEN]
    done = run(path, "uplink", "open", "results", "--for", "10m", "--reason", "results of the night")
    assert done.exit_code == 0
    assert done.stdout == f"results is open for 9 min 40 s: {FLOW}\n"
    (asked,) = enclosure.asked
    assert asked.startswith("open results for 600 s as ")
    assert asked.endswith(": results of the night")


def test_closing_waits_until_it_is_closed(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.current = OPEN
    enclosure.answers = [DARK]
    done = run(path, "uplink", "close")
    assert (done.exit_code, done.stdout) == (0, "the uplink is dark\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["results"],
        ["results", "--for", "10m"],
        ["results", "--for", "soon", "--reason", "x"],
        ["results", "--for", "0s"],
    ],
)
def test_an_opening_needs_a_duration_and_a_reason(path: Path, arguments: list[str]) -> None:
    assert run(path, "uplink", "open", *arguments).exit_code == 2


def test_a_refusal_is_told_with_its_way_out(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.refusal = CleanroomError("cannot open results: this is an exercise", "restart without --drill")
    done = run(path, "uplink", "open", "results", "--for", "10m", "--reason", "x")
    assert done.exit_code == 1
    assert done.stderr == "cannot open results: this is an exercise\n  restart without --drill\n"


def test_a_lease_through_which_nothing_passes_is_told_as_such() -> None:
    held = uplink(replace(LEASE, problem="no cable is seen in port uplink"))
    request = OpenUplink("results", 600.0, "x")
    assert judge(request, DARK, held, waited=0) is None
    judged = judge(request, DARK, held, waited=SETTLE)
    assert judged == Outcome(Exit.DEGRADED, "results is leased, but no cable is seen in port uplink")
    judged = judge(request, DARK, DARK, waited=SETTLE)
    assert judged is not None
    assert judged.exit is Exit.CANNOT


def test_what_does_not_close_cannot_be_closed() -> None:
    assert judge(CloseUplink("results"), OPEN, OPEN, waited=0) is None
    judged = judge(CloseUplink(None), OPEN, OPEN, waited=SETTLE)
    assert judged is not None
    assert judged.exit is Exit.CANNOT


def test_an_exercise_is_shown(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.current = replace(DARK, drill=True)
    assert "exercise" in run(path, "uplink").stdout
    assert "DRILL" in run(path, "status").stdout
