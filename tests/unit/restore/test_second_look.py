"""What a daemon decides about machines that it did not start, or that are on their way out; and about dark ports."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from cleanroomd.model.observed import (
    DiskFacts,
    Intent,
    MachineFacts,
    MachinePhase,
    Made,
    Observed,
    ProbeFacts,
)
from cleanroomd.model.plan import Card, Flow, Plan, StartKind
from cleanroomd.model.posture import Proof
from cleanroomd.model.status import ServiceState, VerdictKind
from cleanroomd.model.steps import DeclareReady, FailAttempt, LaunchMachine, RunMachine, SetLink, Step, StopMachine
from cleanroomd.restore.desired import planned_guards, tap_name
from cleanroomd.restore.judgement import judge
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from cleanroomd.restore.report import report

from .plans import CARE, MIB, UPLINK, observed, plan, service

PLAN = plan(service("database", number=1), service("record", number=2, depends_on=("database",)))


def proven(of: Plan, **changes: object) -> Observed:
    seen = replace(observed(of), **changes)  # type: ignore[arg-type]
    posture = reconcile(Outline(of), seen).posture
    return replace(seen, taps=frozenset(tap.interface for tap in posture.taps), proof=Proof(posture, 1, "", seen.now))


def machine(name: str, **changes: object) -> MachineFacts:
    made = MachineFacts(
        service=name,
        pid=1,
        phase=MachinePhase.RUNNING,
        start=StartKind.COLD,
        attempt=1,
        memory=512 * MIB,
        launched_at=1000.0,
        running_at=1000.0,
        ready_at=1000.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shortage",
    [
        {"disks": {"record-system": DiskFacts("record-system")}},
        {"capacity": replace(observed(PLAN).capacity, memory=100 * MIB)},
    ],
    ids=["its disk left the vault", "less memory than before"],
)
def test_a_machine_that_runs_keeps_what_it_has(shortage: dict[str, object]) -> None:
    """And what depends on it is judged, not stumbled over: its dependency is ready, though it could not start now."""
    seen = proven(PLAN, machines={"database": machine("database")}, **shortage)
    turn = reconcile(Outline(PLAN), seen)
    states = {name: each.state for name, each in turn.judgement.services.items()}
    assert states["database"] is ServiceState.READY
    assert turn.judgement.admission.grants["database"].memory == 512 * MIB
    expected = ServiceState.PENDING if "disks" in shortage else ServiceState.EXCLUDED
    assert states["record"] is expected
    assert report(Outline(PLAN), seen, turn, unsealed=True).verdict.kind is not VerdictKind.ADMISSIBLE


def test_what_is_below_a_running_machine_in_the_order_gets_no_memory_of_it() -> None:
    of = plan(service("first", number=1, priority=1), service("second", number=2, priority=2, required=False))
    tight = replace(observed(of).capacity, memory=600 * MIB)
    seen = proven(of, machines={"second": machine("second")}, capacity=tight)
    judgement = judge(Outline(of), seen)
    assert judgement.services["second"].state is ServiceState.READY
    assert judgement.services["first"].state is ServiceState.EXCLUDED
    assert "needs 512 MiB at least, 88 MiB left" in judgement.services["first"].reason


def test_a_machine_of_another_plan_is_stopped_and_holds_its_memory_until_then() -> None:
    of = plan(service("record"))
    tight = replace(observed(of).capacity, memory=600 * MIB)
    seen = proven(of, machines={"stranger": machine("stranger")}, capacity=tight)
    turn = reconcile(Outline(of), seen)
    assert turn.judgement.services["record"].state is ServiceState.PENDING
    assert turn.judgement.services["record"].reason.startswith("waiting for memory")
    assert turn.steps[-1] == StopMachine("stranger", 90.0)
    assert not any(isinstance(step, LaunchMachine) for step in turn.steps)
    shown = report(Outline(of), seen, turn, unsealed=True).services[-1]
    assert (shown.name, shown.state) == ("stranger", ServiceState.STOPPING)
    gone = replace(seen, machines={})
    assert isinstance(reconcile(Outline(of), gone).steps[-1], LaunchMachine)


def made(of: Plan, name: str) -> Made:
    outline = Outline(of)
    return Made(
        definition=outline.definitions[name],
        guards=planned_guards(outline, outline.services[name]),
        depends_on=outline.services[name].depends_on,
        shutdown_timeout=20.0,
    )


def test_machines_of_another_plan_stop_in_reverse_order_under_the_guards_that_they_had() -> None:
    of = plan(service("imaging", number=3))
    before = {name: machine(name, made=made(PLAN, name)) for name in ("database", "record")}
    seen = proven(of, machines=before)
    turn = reconcile(Outline(of), seen)
    assert [step for step in turn.steps if isinstance(step, StopMachine)] == [StopMachine("record", 20.0)]
    assert "stops after record" in turn.judgement.strangers["database"].reason
    guarded = {(tap.interface, tap.mac) for tap in turn.posture.taps}
    assert ("tap-database", "52:54:00:01:00:01") in guarded
    assert not [each for each in turn.posture.allowances if each.target == "tap-database"]


def test_what_strangers_of_several_plans_hold_each_other_up_with_is_not_waited_for() -> None:
    of = plan(service("imaging", number=3))
    ring = {
        "database": machine("database", made=replace(made(PLAN, "database"), depends_on=("record",))),
        "record": machine("record", made=made(PLAN, "record")),
    }
    steps = reconcile(Outline(of), proven(of, machines=ring)).steps
    assert {step.service for step in steps if isinstance(step, StopMachine)} == {"database", "record"}


def test_a_machine_whose_definition_changed_runs_on_as_it_was_made() -> None:
    """Its own address stays open and guarded, and the operator is told when the change takes effect."""
    flow = Flow("workstations", "record", tcp=(80,))
    old = plan(service("record"), flows=(flow,))
    new = plan(replace(service("record"), address=IPv4Address("10.9.9.9"), mac="52:54:00:09:09:09"), flows=(flow,))
    answer = {"record": ProbeFacts(ok=True, detail="answered", at=1000.0)}
    seen = proven(new, machines={"record": machine("record", made=made(old, "record"))}, probes=answer)
    turn = reconcile(Outline(new), seen)
    (tap,) = turn.posture.taps
    assert (str(tap.address), tap.mac) == ("10.1.0.1", "52:54:00:01:00:01")
    assert {str(each.destination) for each in turn.posture.allowances} == {"10.1.0.1/32"}
    status = report(Outline(new), seen, turn, unsealed=True)
    assert status.services[0].state is ServiceState.READY
    assert status.services[0].reason == "answered; it runs as an earlier plan described it"
    assert status.next_action.startswith("`cleanroomctl stop record`, then `start record`")


def test_a_machine_that_started_with_less_than_there_is_now_is_told_how_to_get_it() -> None:
    of = plan(service("record", memory=1024 * MIB))
    (finding,) = judge(Outline(of), proven(of, machines={"record": machine("record")})).admission.verdict.findings
    assert finding.effect == "runs with 512 MiB instead of 1 GiB"
    assert finding.remedy.startswith("`cleanroomctl stop record`, then `start record`")
    tight = replace(observed(of).capacity, memory=600 * MIB)
    seen = proven(of, machines={"record": machine("record")}, capacity=tight)
    (finding,) = judge(Outline(of), seen).admission.verdict.findings
    assert finding.remedy == "add 512 MiB of memory"


def test_a_plan_that_cannot_be_read_again_is_what_the_operator_sees_first() -> None:
    of = plan(service("record"))
    seen = proven(of, machines={"record": machine("record")})
    turn = reconcile(Outline(of), seen)
    status = report(Outline(of), seen, turn, unsealed=True, plan_problem="cannot read the plan: line 3")
    assert status.plan_problem == "cannot read the plan: line 3"
    assert "cannot read the plan: line 3" in status.next_action


def test_each_card_of_a_machine_has_its_own_tap_guard_and_flows() -> None:
    second = Card("modalities", "52:54:00:01:01:01", IPv4Address("10.30.0.14"), IPv4Address("10.30.0.1"))
    of = plan(
        replace(service("imaging"), nics=(second,)),
        flows=(Flow("workstations", "imaging", tcp=(80,)), Flow("workstations", "imaging.modalities", tcp=(104,))),
    )
    seen = proven(of, machines={"imaging": machine("imaging", made=made(of, "imaging"))})
    posture = reconcile(Outline(of), seen).posture
    assert [(tap.interface, str(tap.address)) for tap in posture.taps] == [
        ("tap-imaging", "10.1.0.1"),
        (tap_name("imaging", "modalities"), "10.30.0.14"),
    ]
    opened = {(each.target, str(each.destination), each.port) for each in posture.allowances if each.origin}
    assert opened == {
        ("tap-imaging", "10.1.0.1/32", 80),
        (tap_name("imaging", "modalities"), "10.30.0.14/32", 104),
    }
    half = replace(seen, machines={}, proof=Proof(replace(posture, taps=posture.taps[:1]), 1, "", 1000.0))
    assert judge(Outline(of), half).services["imaging"].reason == "waits for its tap"


def late(**changes: object) -> tuple[Step, ...]:
    """The steps for a machine whose deadline is long over, and that has not been asked by this daemon."""
    of = plan(service("record"))
    booting = machine("record", ready_at=None, **changes)
    seen = replace(proven(of, machines={"record": booting}), now=9000.0, watched=frozenset({"record"}))
    return judge(Outline(of), seen).services["record"].steps


def test_a_machine_that_an_earlier_daemon_let_go_is_asked_before_it_is_given_up() -> None:
    assert late(adopted_at=8990.0) == ()
    assert [type(step) for step in late(adopted_at=8000.0)] == [FailAttempt]
    assert [type(step) for step in late()] == [FailAttempt]


@pytest.mark.parametrize(
    ("step", "intent", "state", "reason"),
    [
        (StopMachine("record", 20.0), Intent.STOP, ServiceState.STOPPING, "stop record, gracefully for up to 20 s"),
        (StopMachine("record", 20.0), Intent.RUN, ServiceState.STOPPING, "then starts again"),
        (RunMachine("record"), Intent.STOP, ServiceState.STOPPING, "stops after this: run record"),
        (DeclareReady("record", "HTTP 200"), Intent.RUN, ServiceState.BOOTING, "HTTP 200"),
        (FailAttempt("record", "QEMU ended"), Intent.RUN, ServiceState.PENDING, "QEMU ended"),
        (LaunchMachine("record", StartKind.COLD, 1, MIB), Intent.RUN, ServiceState.STARTING, "launch record"),
    ],
)
def test_the_state_is_that_of_the_step_under_way(step: Step, intent: Intent, state: ServiceState, reason: str) -> None:
    of = plan(service("record"))
    seen = proven(of, machines={"record": machine("record")}, busy={"record": step}, intents={"record": intent})
    judged = judge(Outline(of), seen).services["record"]
    assert judged.state is state
    assert reason in judged.reason
    assert judged.steps == ()


def test_a_dark_port_is_taken_down_even_when_no_rules_can_be_had() -> None:
    of = plan(service("record"))
    lit = replace(UPLINK, up=True, addresses=frozenset({"192.168.40.5/24"}))
    seen = replace(
        observed(of),
        interfaces=(CARE, lit),
        isolation_problem="cannot get the owning socket",
        rules_retry_at=2000.0,
    )
    assert reconcile(Outline(of), seen).steps == (SetLink("uplink", "uplink0", up=False),)


def test_a_care_port_waits_for_the_rules() -> None:
    of = plan(service("record"))
    down = replace(CARE, up=False)
    steps = reconcile(Outline(of), replace(observed(of), interfaces=(down, UPLINK))).steps
    assert not any(isinstance(step, SetLink) for step in steps)


def test_a_ready_machine_that_dies_closes_its_flows_in_the_same_turn() -> None:
    of = plan(service("record"))
    answer = {"record": ProbeFacts(ok=True, detail="answered", at=1000.0)}
    seen = proven(of, machines={"record": machine("record")}, probes=answer)
    dead = replace(seen, machines={"record": machine("record", phase=MachinePhase.DEAD, death="QEMU ended")})
    turn = reconcile(Outline(of), dead)
    assert not any(allowance.origin for allowance in turn.posture.allowances)
    assert isinstance(turn.steps[-1], FailAttempt)
