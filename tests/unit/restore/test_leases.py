"""The uplink under leases: what the pure core opens, for how long, and in which order.

The simulator checks the sentences (`check_passages`, `check_opening`, `check_uplink`) at every step.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroomd.engine.apply import LongStep
from cleanroomd.model.observed import Deadline, Lease, Observed
from cleanroomd.model.plan import Plan, Window
from cleanroomd.model.posture import Proof
from cleanroomd.model.steps import ApplyRules, EndLease, HoldDeadline, SetLink, Step
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round, reconcile
from cleanroomd.restore.rehearsal import outcome
from cleanroomd.restore.report import report

from .plans import MIB, OUTSIDE, UPLINK, observed, plan, plans, service
from .simulator import Enclosure

WINDOWS = ["results", "images", "zone"]
HOSPITAL = OUTSIDE.network[10]
ZONE = Window("zone", "workstations", HOSPITAL, (2575,), 300.0)
OF = replace(plan(service("imaging")), windows=(ZONE, Window("results", "imaging", HOSPITAL, (104, 2575), 300.0)))


@pytest.mark.timeout(300)
@settings(max_examples=150)
@given(plans(largest=2), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_whatever_happens_the_uplink_is_open_for_its_leases_only(of: Plan, seed: int, faults: float) -> None:
    rng = random.Random(seed)
    world = Enclosure(of, rng, memory=40 * 128 * MIB, slots=2, overhead=0, faults=faults)
    try:
        for _ in range(60):
            world.settle()
            disturb(world, rng)
    except AssertionError as error:
        raise AssertionError("\n".join((str(error), *world.log[-30:]))) from error


def disturb(world: Enclosure, rng: random.Random) -> None:
    match rng.randrange(16):
        case 0 | 1 | 2 | 3:
            world.lease(rng.choice(WINDOWS), rng.choice([5.0, 60.0, 250.0]))
        case 4 | 5:
            world.close(rng.choice(WINDOWS))
        case 6:
            world.lose_keeper()
        case 7:
            world.restart()
        case 8:
            world.change_rules()
        case 9 if world.seen.busy:
            world.finish(rng.choice(list(world.seen.busy)), well=True)
        case 10 if world.seen.watched:
            world.answer(rng.choice(sorted(world.seen.watched)), ok=True)
        case 12:
            world.clone(UPLINK)
        case 11 if rng.random() < 0.2:
            world.cut_power()
        case _:
            world.pass_time(rng.choice([0.1, 1.0, 3.0, 30.0, 100.0]))


def leased(seconds: float = 60.0, window: str = "zone", **changes: object) -> Observed:
    begin = observed(OF)
    lease = Lease(window, begin.now, begin.now + seconds, "because", "claire")
    return replace(begin, leases={window: lease}, **changes)  # type: ignore[arg-type]


def taken(seen: Observed, of: Plan = OF) -> tuple[list[Step], Observed, Round]:
    """Every step about isolation until none is left, and what is observed then."""
    steps: list[Step] = []
    for _ in range(12):
        turn = reconcile(Outline(of), seen)
        found = [step for step in turn.steps if not isinstance(step, LongStep)]
        if not found:
            return steps, seen, turn
        for step in found:
            steps.append(step)
            seen = outcome(Outline(of), step, seen)
    raise AssertionError(f"no end of steps: {steps}")


def kinds(steps: list[Step]) -> list[str]:
    about = (step for step in steps if isinstance(step, ApplyRules | SetLink | HoldDeadline | EndLease))
    return [type(step).__name__ for step in about if not (isinstance(step, SetLink) and step.role != "uplink")]


def test_it_opens_rules_first_and_link_last_and_closes_the_other_way_round() -> None:
    steps, seen, turn = taken(leased())
    assert kinds(steps) == ["ApplyRules", "HoldDeadline", "SetLink"]
    assert steps[-1] == SetLink("uplink", UPLINK.name, up=True, addresses=(str(OUTSIDE),), until=1060.0)
    assert seen.deadline == Deadline(UPLINK.name, 1060.0)
    assert turn.wake_at == 1060.0

    steps, seen, _ = taken(replace(seen, now=1060.0))
    assert kinds(steps) == ["SetLink", "ApplyRules", "EndLease", "HoldDeadline"]
    assert steps[0] == SetLink("uplink", UPLINK.name, up=False)
    assert not seen.leases
    assert seen.deadline is None


def test_a_restarted_daemon_leaves_the_link_up_while_it_looks_for_itself() -> None:
    _, seen, _ = taken(leased())
    restarted = replace(seen, proof=None, deadline=None, now=seen.now + 3)
    assert kinds(list(reconcile(Outline(OF), restarted).steps))[:1] == ["ApplyRules"]
    # It connects to the keeper for that, and asks what it holds.
    proof = Proof(reconcile(Outline(OF), restarted).posture, 7, "", restarted.now)
    steps, seen, _ = taken(replace(restarted, proof=proof, deadline=seen.deadline))
    assert steps == []
    assert {lease.until for lease in seen.leases.values()} == {1060.0}


@pytest.mark.parametrize(
    "changes", [{"deadline": None}, {"isolation_problem": "cannot apply the rules", "proof": None}]
)
def test_the_link_goes_down_when_nobody_would_take_it_down(changes: dict[str, object]) -> None:
    _, seen, _ = taken(leased())
    first = reconcile(Outline(OF), replace(seen, **changes)).steps[0]  # type: ignore[arg-type]
    assert first == SetLink("uplink", UPLINK.name, up=False)


def test_a_link_waits_for_the_round_after_the_keeper_was_asked() -> None:
    """A step that fails does not keep the next from being taken."""
    _, seen, _ = taken(leased())
    down = tuple(replace(each, up=False, addresses=frozenset()) for each in seen.interfaces if each.name == UPLINK.name)
    others = tuple(each for each in seen.interfaces if each.name != UPLINK.name)
    stale = replace(seen, interfaces=(*others, *down), deadline=Deadline(UPLINK.name, 1010.0))
    assert kinds(list(reconcile(Outline(OF), stale).steps)) == ["HoldDeadline"]


def test_a_keeper_that_refuses_is_asked_again_later() -> None:
    _, seen, _ = taken(leased())
    turn = reconcile(Outline(OF), replace(seen, deadline=None, deadline_retry_at=1002.0))
    assert kinds(list(turn.steps)) == ["SetLink"]
    assert turn.wake_at == 1002.0


def test_a_drill_never_opens_and_ends_leases_from_before() -> None:
    steps, seen, _ = taken(leased(drill=True))
    assert kinds(steps) == ["ApplyRules", "EndLease"]
    assert not seen.leases


def test_a_machine_that_is_not_ready_keeps_its_window_shut() -> None:
    seen = leased(window="results")
    steps, seen, turn = taken(seen)
    assert "SetLink" not in kinds(steps)
    (lease,) = report(Outline(OF), seen, turn, unsealed=True).isolation.leases
    assert lease.problem == "imaging is not ready"
    assert report(Outline(OF), seen, turn, unsealed=True).isolation.uplink.startswith("dark; results is leased, but")


def test_a_plan_that_allows_less_shortens_a_lease_and_one_without_the_window_ends_it() -> None:
    _, seen, _ = taken(leased(300.0))
    shorter = replace(OF, windows=(replace(ZONE, longest=100.0),))
    _, after, turn = taken(seen, shorter)
    assert turn.posture.ends == {UPLINK.name: 1100.0}
    assert after.deadline == Deadline(UPLINK.name, 1100.0)
    longer = replace(OF, windows=(replace(ZONE, longest=3600.0),))
    assert taken(after, longer)[2].posture.ends == {UPLINK.name: 1300.0}
    steps, after, _ = taken(after, replace(OF, windows=()))
    assert EndLease("zone", 1300.0, "the plan in force has no such window") in steps
    assert not any(each.up for each in after.interfaces if each.name == UPLINK.name)


def test_the_status_says_who_opened_what_and_why() -> None:
    _, seen, turn = taken(leased())
    # As the next look finds it.
    status = report(Outline(OF), seen, turn, unsealed=True)
    (lease,) = status.isolation.leases
    assert (lease.author, lease.reason, lease.until, lease.problem) == ("claire", "because", 1060.0, "")
    assert lease.flow == f"workstations to {HOSPITAL}, tcp 2575"
    assert status.isolation.uplink == "open for zone"
    assert [window.name for window in status.isolation.windows] == ["zone", "results"]


def test_two_leases_are_open_until_the_later_end_and_each_until_its_own() -> None:
    begin = observed(replace(OF, windows=(ZONE, replace(ZONE, name="other", tcp=(104,)))))
    leases = {name: Lease(name, 1000.0, 1000.0 + end, "x", "y") for name, end in (("zone", 30.0), ("other", 90.0))}
    of = replace(OF, windows=(ZONE, replace(ZONE, name="other", tcp=(104,))))
    _, seen, turn = taken(replace(begin, leases=leases), of)
    assert seen.deadline == Deadline(UPLINK.name, 1090.0)
    assert {passage.port: passage.until for passage in turn.posture.passages} == {2575: 1030.0, 104: 1090.0}
    _, seen, turn = taken(replace(seen, now=1030.0), of)
    assert set(seen.leases) == {"other"}
    assert {passage.port for passage in turn.posture.passages} == {104}
    assert any(each.up for each in seen.interfaces if each.name == UPLINK.name)
