"""A machine whose tap was deleted under it is connected again, once the new tap is guarded, and says so meanwhile."""

from dataclasses import replace

import pytest

from cleanroomd.model.observed import MachinePhase, Observed
from cleanroomd.model.status import Alarm, ServiceState
from cleanroomd.model.steps import RejoinTap, RunMachine
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round, reconcile
from cleanroomd.restore.report import report

from .plans import plan, service
from .test_second_look import machine, proven

PLAN = plan(service("record", number=1))
OUTLINE = Outline(PLAN)
TAP = "tap-record"


def seen(**changes: object) -> Observed:
    return proven(PLAN, machines={"record": machine("record", severed=(TAP,), **changes)})


def rejoins(turn: Round) -> list[RejoinTap]:
    return [step for step in turn.steps if isinstance(step, RejoinTap)]


def test_it_is_connected_again_and_stays_ready() -> None:
    turn = reconcile(OUTLINE, seen())
    assert rejoins(turn) == [RejoinTap("record", TAP)]
    judged = turn.judgement.services["record"]
    assert judged.state is ServiceState.READY
    assert judged.reason.startswith("cut off: tap-record")
    assert "record was cut off" in report(OUTLINE, seen(), turn, unsealed=False).next_action


@pytest.mark.parametrize("change", [{"proof": None}, {"taps": frozenset()}, {"isolation_problem": "a bridge"}])
def test_not_before_the_new_tap_is_there_and_guarded(change: dict[str, object]) -> None:
    assert rejoins(reconcile(OUTLINE, replace(seen(), **change))) == []  # type: ignore[arg-type]


def test_a_paused_machine_is_connected_before_its_first_instruction() -> None:
    turn = reconcile(OUTLINE, seen(phase=MachinePhase.PAUSED, running_at=None, ready_at=None))
    assert rejoins(turn) == [RejoinTap("record", TAP)]
    assert not any(isinstance(step, RunMachine) for step in turn.steps)


def test_a_standing_alarm_is_what_to_see_to_first() -> None:
    alarm = Alarm(1.0, "rules of somebody else stay", "nft (pid 7)", "nft", undone=False, remedy="end it", times=1)
    observed = replace(seen(), alarms=(alarm,))
    status = report(OUTLINE, observed, reconcile(OUTLINE, observed), unsealed=False)
    assert status.next_action == "rules of somebody else stay, by nft (pid 7): end it"
    assert status.isolation.alarms == (alarm,)
