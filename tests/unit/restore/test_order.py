"""Each sentence of "Restoration, exactly" that the pure core decides, over random plans."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.model.observed import MachinePhase, Observed
from cleanroomd.model.plan import Plan
from cleanroomd.model.status import RunState, ServiceState, VerdictKind
from cleanroomd.model.steps import ApplyRules, DeclareReady, FailAttempt, LaunchMachine, RunMachine, Step
from cleanroomd.restore.judgement import judge
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from cleanroomd.restore.rehearsal import outcome, rehearse
from cleanroomd.restore.report import report, run_state

from .plans import MIB, observed, plan, plans, service


def replay(of: Plan, begin: Observed, **options: object) -> list[tuple[Observed, float, Step]]:
    """Every step of a rehearsal with what was observed before it."""
    seen = []
    now = begin
    for at, step in rehearse(Outline(of), begin, **options):  # type: ignore[arg-type]
        now = replace(now, now=at)
        seen.append((now, at, step))
        now = outcome(Outline(of), step, now)
    return seen


durations = st.dictionaries(
    st.tuples(st.sampled_from([f"s{n}" for n in range(8)]), st.integers(1, 4)),
    st.one_of(st.none(), st.floats(0.5, 200)),
)


def from_table(table: dict[tuple[str, int], float | None]):  # type: ignore[no-untyped-def]
    """Durations by service and attempt; machines that are not in the table boot in 10 s."""
    return lambda machine: table.get((machine.service, machine.attempt), 10.0)


@given(plans(), st.integers(1, 4), durations)
def test_no_start_before_its_dependencies_are_ready(of: Plan, slots: int, table: dict) -> None:
    ready: set[str] = set()
    for _, step in rehearse(Outline(of), observed(of, slots=slots), from_table(table)):
        if isinstance(step, DeclareReady):
            ready.add(step.service)
        if isinstance(step, LaunchMachine):
            assert ready.issuperset(of.service(step.service).depends_on)


@given(plans(), st.integers(1, 4), durations)
def test_slots_are_never_exceeded_and_never_idle(of: Plan, slots: int, table: dict) -> None:
    outline = Outline(of)
    for before, _, step in replay(of, observed(of, slots=slots), duration=from_table(table)):
        if isinstance(step, LaunchMachine):
            after = outcome(Outline(of), step, before)
            coming = [machine for machine in after.machines.values() if machine.ready_at is None]
            assert len(coming) <= slots
        if isinstance(step, RunMachine):
            # Whoever is held back by the slots alone is held back because all of them are taken.
            held = [each for each in judge(outline, before).services.values() if "start slot" in each.reason]
            coming = [machine for machine in before.machines.values() if machine.ready_at is None]
            assert not held or len(coming) >= slots


@given(plans(), st.integers(1, 3))
def test_nothing_of_a_lower_priority_starts_while_something_higher_could(of: Plan, slots: int) -> None:
    outline = Outline(of)
    for before, _, step in replay(of, observed(of, slots=slots)):
        if isinstance(step, LaunchMachine):
            rank = outline.start_order.index(step.service)
            for name in outline.start_order[:rank]:
                assert name in before.machines or any(
                    before.machines.get(need) is None or before.machines[need].ready_at is None
                    for need in outline.services[name].depends_on
                )


def test_a_late_database_inherits_the_priority_of_the_record_that_needs_it() -> None:
    of = plan(
        service("archive", number=1, priority=2),
        service("database", number=2, priority=5),
        service("record", number=3, priority=1, depends_on=("database",)),
    )
    launched = [
        step.service for _, step in rehearse(Outline(of), observed(of, slots=1)) if isinstance(step, LaunchMachine)
    ]
    assert launched == ["database", "record", "archive"]


@given(plans(), st.integers(1, 40), st.integers(1, 3), durations)
def test_memory_is_never_exceeded(of: Plan, units: int, slots: int, table: dict) -> None:
    memory = units * 128 * MIB
    for before, _, step in replay(of, observed(of, memory=memory, slots=slots), duration=from_table(table)):
        held = sum(machine.memory for machine in outcome(Outline(of), step, before).machines.values())
        assert held <= memory


@given(plans(), st.integers(1, 40))
def test_the_verdict_says_who_does_not_run_and_why(of: Plan, units: int) -> None:
    outline = Outline(of)
    admission = judge(outline, observed(of, memory=units * 128 * MIB)).admission
    out = {each.name for each in of.services} - set(admission.grants)
    shrunk = {name for name, grant in admission.grants.items() if grant.memory < of.service(name).memory}
    assert {finding.service for finding in admission.verdict.findings} == out | shrunk
    required_out = any(of.service(name).required for name in out)
    expected = VerdictKind.BLOCKED if required_out else VerdictKind.DEGRADED if out | shrunk else VerdictKind.ADMISSIBLE
    assert admission.verdict.kind is expected
    for name in admission.grants:
        assert set(of.service(name).depends_on) <= set(admission.grants)


@given(plans())
def test_required_services_are_not_pushed_out_by_others(of: Plan) -> None:
    outline = Outline(of)
    least = sum(outline.services[name].memory_min for name in outline.essential)
    admission = judge(outline, observed(of, memory=least)).admission
    assert outline.essential <= set(admission.grants)


@given(plans(), st.integers(1, 40), durations)
def test_flows_open_at_ready_and_not_before(of: Plan, units: int, table: dict) -> None:
    begin = observed(of, memory=units * 128 * MIB)
    for before, _, step in replay(of, begin, duration=from_table(table)):
        if isinstance(step, ApplyRules):
            for allowance in step.posture.allowances:
                target = next(each for each in of.services if f"tap-{each.name}" == allowance.target)
                machine = before.machines.get(target.name)
                if allowance.origin:
                    assert machine is not None
                    assert machine.ready_at is not None


@given(plans(), st.integers(1, 40), durations)
def test_no_first_instruction_without_proven_rules_for_its_tap(of: Plan, units: int, table: dict) -> None:
    begin = observed(of, memory=units * 128 * MIB)
    for before, _, step in replay(of, begin, duration=from_table(table)):
        if isinstance(step, RunMachine):
            assert before.proof is not None
            assert any(tap.service == step.service for tap in before.proof.posture.taps)


@given(plans(), st.integers(1, 40), st.integers(1, 3), durations)
def test_every_run_ends_and_replanning_then_is_empty(of: Plan, units: int, slots: int, table: dict) -> None:
    outline = Outline(of)
    begin = observed(of, memory=units * 128 * MIB, slots=slots)
    last = begin
    for before, at, step in replay(of, begin, duration=from_table(table)):
        last = replace(outcome(Outline(of), step, before), now=at)
    turn = reconcile(outline, replace(last, now=last.now + 0.0))
    assert turn.steps == ()
    state = run_state(outline, turn.judgement)
    waiting_for_ever = any(
        machine.phase is MachinePhase.RUNNING and machine.ready_at is None for machine in last.machines.values()
    )
    assert not waiting_for_ever
    assert state in (RunState.RESTORED, RunState.DEGRADED, RunState.HALTED)
    states = {name: each.state for name, each in turn.judgement.services.items()}
    if state is RunState.RESTORED:
        assert set(states.values()) == {ServiceState.READY}
    required = {each.name for each in of.services if each.required}
    assert (state is RunState.HALTED) == any(states[name] is not ServiceState.READY for name in required)


@given(plans(), durations)
def test_attempts_are_bounded_by_the_plan(of: Plan, table: dict) -> None:
    begin = observed(of)
    failures: dict[str, int] = {}
    for _, step in rehearse(Outline(of), begin, from_table(table)):
        if isinstance(step, FailAttempt):
            failures[step.service] = failures.get(step.service, 0) + 1
            assert failures[step.service] <= of.service(step.service).retries + 1


@given(plans(), st.integers(1, 40), durations, st.integers(0, 60))
def test_every_service_has_a_reason_and_the_report_is_total(of: Plan, units: int, table: dict, stop: int) -> None:
    outline = Outline(of)
    now = observed(of, memory=units * 128 * MIB)
    for count, (before, _, step) in enumerate(replay(of, now, duration=from_table(table))):
        now = outcome(Outline(of), step, before)
        if count == stop:
            break
    status = report(outline, now, reconcile(outline, now), unsealed=True)
    assert {each.name for each in status.services} == set(outline.services)
    assert all(each.reason for each in status.services)
    assert status.next_action


def test_a_failed_service_blocks_only_what_depends_on_it() -> None:
    of = plan(
        service("database", number=1, retries=0),
        service("record", number=2, depends_on=("database",)),
        service("imaging", number=3),
    )
    outline = Outline(of)
    now = observed(of)
    table = {("database", 1): None}
    for before, _, step in replay(of, now, duration=from_table(table)):
        now = outcome(Outline(of), step, before)
    states = {name: each.state for name, each in judge(outline, now).services.items()}
    assert states == {
        "database": ServiceState.FAILED,
        "record": ServiceState.BLOCKED,
        "imaging": ServiceState.READY,
    }
    assert run_state(outline, judge(outline, now)) is RunState.HALTED
