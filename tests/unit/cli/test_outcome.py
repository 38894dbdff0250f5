"""When a request has come to its end, and to which."""

from dataclasses import replace

import pytest

from cleanroomd.cli.outcome import SETTLE, Outcome, Request, Restore, Shutdown, Start, Stop, judge
from cleanroomd.errors import Exit
from cleanroomd.model.status import RunState, ServiceState, Status
from tests.unit.control.fake import STATUS, with_service

STATES = ServiceState


def a_status(record: ServiceState, run: RunState = RunState.RESTORING, imaging: ServiceState = STATES.READY) -> Status:
    status = replace(STATUS, state=run)
    for name, state in (("record", record), ("imaging", imaging)):
        status = with_service(status, name, state, reason="the reason", elapsed=None)
    return status


def outcome(request: Request, before: Status, status: Status, *, waited: float = 0.0) -> Exit | None:
    judged = judge(request, before, status, waited=waited)
    return judged.exit if judged else None


STOPPED = a_status(STATES.STOPPED, RunState.DEGRADED)
FAILED = a_status(STATES.FAILED, RunState.HALTED)


@pytest.mark.parametrize("state", [STATES.PENDING, STATES.STARTING, STATES.BOOTING, STATES.STOPPING])
def test_a_service_on_its_way_is_waited_for(state: ServiceState) -> None:
    assert outcome(Start("record"), STOPPED, a_status(state), waited=10_000) is None


def test_a_service_that_answers_is_started() -> None:
    judged = judge(Start("record"), STOPPED, a_status(STATES.READY), waited=0)
    assert judged == Outcome(Exit.DONE, "record is ready: the reason")


def test_a_failure_from_before_the_request_is_given_time() -> None:
    assert outcome(Start("record"), FAILED, FAILED) is None
    assert outcome(Start("record"), FAILED, FAILED, waited=SETTLE) is Exit.CANNOT


def test_a_failure_after_the_request_is_told_at_once() -> None:
    again = with_service(FAILED, "record", STATES.FAILED, reason="no disk")
    judged = judge(Start("record"), FAILED, again, waited=0)
    assert judged == Outcome(Exit.CANNOT, "cannot start record: no disk")


@pytest.mark.parametrize("state", [STATES.BLOCKED, STATES.STOPPED])
def test_a_dead_end_counts_when_nothing_moves_any_more(state: ServiceState) -> None:
    assert outcome(Start("record"), STOPPED, a_status(state), waited=SETTLE) is None
    settled = a_status(state, RunState.HALTED)
    assert outcome(Start("record"), STOPPED, settled) is None
    assert outcome(Start("record"), STOPPED, settled, waited=SETTLE) is Exit.CANNOT


def test_a_service_that_does_not_fit_is_not_waited_for() -> None:
    assert outcome(Start("record"), STOPPED, a_status(STATES.EXCLUDED), waited=SETTLE) is Exit.CANNOT


def test_a_service_that_left_the_plan_is_not_waited_for() -> None:
    assert outcome(Start("record"), STATUS, replace(STATUS, services=())) is Exit.CANNOT


def test_stopping_ends_with_the_machine() -> None:
    assert outcome(Stop("record"), STATUS, a_status(STATES.STOPPING), waited=10_000) is None
    assert outcome(Stop("record"), STATUS, a_status(STATES.STOPPED)) is Exit.DONE


def test_stopping_waits_for_what_depends_on_it() -> None:
    dependant_stops = a_status(STATES.READY, imaging=STATES.STOPPING)
    assert outcome(Stop("record"), STATUS, dependant_stops, waited=10_000) is None


def test_a_stop_that_nothing_came_of_is_said() -> None:
    assert outcome(Stop("record"), STATUS, a_status(STATES.READY), waited=SETTLE - 1) is None
    assert outcome(Stop("record"), STATUS, a_status(STATES.READY), waited=SETTLE) is Exit.CANNOT


@pytest.mark.parametrize(
    ("run", "early", "late"),
    [
        (RunState.RESTORING, None, None),
        (RunState.RESTORED, Exit.DONE, Exit.DONE),
        (RunState.DEGRADED, None, Exit.DEGRADED),
        (RunState.HALTED, None, Exit.CANNOT),
        (RunState.STOPPED, None, Exit.CANNOT),
    ],
)
def test_restoration_ends_as_the_run_does(run: RunState, early: Exit | None, late: Exit | None) -> None:
    status = a_status(STATES.FAILED, run)
    assert outcome(Restore(), STATUS, status) is early
    assert outcome(Restore(), STATUS, status, waited=SETTLE) is late


def test_shutdown_ends_with_the_last_machine() -> None:
    last = a_status(STATES.STOPPED, imaging=STATES.STOPPING)
    assert outcome(Shutdown(), STATUS, last, waited=10_000) is None
    assert outcome(Shutdown(), STATUS, a_status(STATES.FAILED, imaging=STATES.STOPPED)) is Exit.DONE
    judged = judge(Shutdown(), STATUS, a_status(STATES.READY, imaging=STATES.STOPPED), waited=SETTLE)
    assert judged == Outcome(Exit.CANNOT, "cannot stop every machine: record still runs")
