"""The status as people see it."""

from collections.abc import Iterator
from dataclasses import replace
from time import tzset

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroomd.cli.render import COLUMNS, NARROWEST, Mood, change_lines, entry_line, status_lines
from cleanroomd.cli.text import width
from cleanroomd.control.wire import JournalEntry
from cleanroomd.model.status import (
    Finding,
    IsolationStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    Verdict,
    VerdictKind,
)
from tests.unit.control.fake import STATUS, with_service


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    tzset()
    yield
    monkeypatch.undo()
    tzset()


def text(status: Status, *, columns: int = COLUMNS) -> str:
    return "\n".join(line.text for line in status_lines(status, columns=columns))


def test_a_restoration_under_way() -> None:
    assert (
        text(STATUS)
        == """\
Caisson 1, GHT Vaucluse                                       power-on 01:12 ago
ISOLATED   proven 3 s ago, generation 41; uplink dark; 0 foreign changes
RESTORING  1 of 2 ready; all ready in about 40 s

 P  service  state      since    detail
 2  imaging  ready      00:52    C-ECHO 0x0000; warm; data as of 23 Nov 2026
                                 23:10
 2  record   booting    00:20    waiting for HTTP 200 on /login; about 25 s left

Next: nothing to do. `cleanroomctl log --follow` shows what happens."""
    )


def test_what_is_wrong_is_said_with_what_helps() -> None:
    status = with_service(STATUS, "record", ServiceState.FAILED, reason="the guest's kernel panicked", remaining=None)
    status = replace(
        status,
        state=RunState.HALTED,
        remaining=None,
        isolation=replace(status.isolation, proven=False, problem="a foreign table is there: docker"),
        verdict=Verdict(
            VerdictKind.DEGRADED,
            "one service does not fit",
            (Finding("imaging", "starts with 2 GiB", "4 GiB needed, 2.2 GiB free", "add memory"),),
        ),
        next_action="`cleanroomctl start record` tries record again",
        unsealed=True,
    )
    assert (
        text(status)
        == """\
Caisson 1, GHT Vaucluse                                       power-on 01:13 ago
NOT ISOLATED  a foreign table is there: docker
HALTED        1 of 2 ready; required and not ready: record
UNSEALED      nothing here is signed: for tests and drills only

 P  service  state      since    detail
 2  imaging  ready      00:53    C-ECHO 0x0000; warm; data as of 23 Nov 2026
                                 23:10
 2  record   failed     00:00    the guest's kernel panicked

Plan: degraded; one service does not fit
  imaging: starts with 2 GiB, 4 GiB needed, 2.2 GiB free; add memory

Next: `cleanroomctl start record` tries record again."""
    )
    moods = {line.text[:8]: line.mood for line in status_lines(status)}
    assert moods["NOT ISOL"] is moods["HALTED  "] is moods["UNSEALED"] is moods[" 2  reco"] is Mood.BAD


def test_crisis_data_that_are_kept_aside_are_not_forgotten() -> None:
    """Whatever else there is to say: they exist nowhere else."""
    for state in ServiceState:
        flowed = " ".join(text(with_service(STATUS, "record", state, kept_aside=2)).split())
        assert "2 earlier sets of crisis data kept aside" in flowed
    assert "aside" not in text(STATUS)


def test_the_end_says_how_long_it_took() -> None:
    status = replace(STATUS, state=RunState.RESTORED, restored_after=118.4, remaining=None)
    assert "RESTORED  1 of 2 ready; restored 01:58 after power-on" in text(status)


def test_a_name_too_long_for_its_column_is_kept_whole() -> None:
    name = "laboratory-interface-of-the-second-hospital"
    service = replace(STATUS.services[0], name=name)
    lines = text(replace(STATUS, services=(service,))).splitlines()
    assert f"    {name}" in lines
    assert any("ready      00:52" in line for line in lines)


words = st.text(max_size=60)
instants = st.floats(allow_nan=True) | st.floats(0, 1e7)
names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=40)
services = st.builds(
    ServiceStatus,
    name=names,
    priority=st.integers(1, 5),
    reason=words,
    since=instants,
    elapsed=st.none() | instants,
    remaining=st.none() | instants,
    proof=words,
    data_as_of=st.none() | instants,
)
statuses = st.builds(
    Status,
    enclosure=words,
    now=instants,
    power_on=instants,
    restored_after=st.none() | instants,
    remaining=st.none() | instants,
    isolation=st.builds(IsolationStatus, proven_at=st.none() | instants, problem=words, uplink=words),
    verdict=st.builds(
        Verdict,
        summary=words,
        findings=st.lists(st.builds(Finding, words, words, words, words), max_size=3).map(tuple),
    ),
    services=st.lists(services, max_size=6).map(tuple),
    next_action=words,
)


@settings(deadline=None)
@given(statuses, st.integers(NARROWEST, 120))
def test_every_line_fits_and_is_harmless(status: Status, columns: int) -> None:
    for line in status_lines(status, columns=columns):
        assert width(line.text) <= columns
        assert line.text.isprintable()


@settings(deadline=None)
@given(statuses)
def test_every_service_has_its_line(status: Status) -> None:
    shown = text(status)
    assert all(service.name in shown and service.state in shown for service in status.services)


def test_an_entry_of_the_journal_is_one_line() -> None:
    entry = JournalEntry(
        time=1_795_475_405.0, text="ready:\nC-ECHO\x1b[2J", event="service", service="imaging", fields={}
    )
    assert entry_line(entry) == "2026-11-23 23:10:05  imaging: ready: C-ECHO?[2J"
    assert entry_line(replace(entry, service="", time=float("inf"))) == f"{'-':19}  ready: C-ECHO?[2J"


def test_changes_are_told_once() -> None:
    ready = with_service(STATUS, "record", ServiceState.READY, proof="HTTP 200")
    assert change_lines(STATUS, ready) == ["record: ready, HTTP 200"]
    assert change_lines(ready, ready) == []
    assert len(change_lines(None, STATUS)) == 2
