"""The status document, read off one judgement."""

from cleanroomd.model.observed import Observed
from cleanroomd.model.status import (
    IsolationStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    VerdictKind,
)
from cleanroomd.restore.desired import match_ports
from cleanroomd.restore.estimate import remaining
from cleanroomd.restore.judgement import Judgement, ServiceJudgement, is_outdated
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round

_UNSETTLED = frozenset({ServiceState.PENDING, ServiceState.STARTING, ServiceState.BOOTING, ServiceState.STOPPING})


def report(outline: Outline, observed: Observed, turn: Round, *, unsealed: bool, plan_problem: str = "") -> Status:
    """What the daemon says of itself after `turn`."""
    judgement = turn.judgement
    estimates = remaining(outline, observed, judgement)
    services = (
        *(_service(outline, observed, judgement, name, estimates.get(name)) for name in outline.start_order),
        *(_stranger(observed, name, judged) for name, judged in judgement.strangers.items()),
    )
    state = run_state(outline, judgement)
    elapsed = [service.elapsed for service in services if service.elapsed is not None]
    settled = state in (RunState.RESTORED, RunState.DEGRADED)
    return Status(
        enclosure=outline.plan.enclosure.name,
        state=state,
        now=observed.now,
        power_on=observed.power_on,
        restored_after=max(elapsed, default=None) if settled else None,
        remaining=max(estimates.values(), default=None),
        isolation=_isolation(observed),
        verdict=judgement.admission.verdict,
        services=services,
        next_action=_next_action(outline, observed, turn, state, plan_problem),
        plan_problem=plan_problem,
        unsealed=unsealed,
    )


def run_state(outline: Outline, judgement: Judgement) -> RunState:
    """RESTORED, DEGRADED or HALTED once every service has settled, RESTORING before."""
    states = {name: service.state for name, service in judgement.services.items()}
    if all(state is ServiceState.STOPPED for state in states.values()):
        return RunState.STOPPED
    if any(state in _UNSETTLED for state in states.values()):
        return RunState.RESTORING
    if all(state is ServiceState.READY for state in states.values()):
        return RunState.RESTORED
    required = [service.name for service in outline.plan.services if service.required]
    if all(states[name] is ServiceState.READY for name in required):
        return RunState.DEGRADED
    return RunState.HALTED


def _service(
    outline: Outline, observed: Observed, judgement: Judgement, name: str, estimate: float | None
) -> ServiceStatus:
    service = outline.services[name]
    judged = judgement.services[name]
    machine = observed.machines.get(name)
    ready_at = machine.ready_at if machine and judged.state is ServiceState.READY else None
    staged = [
        facts.data_as_of
        for disk in service.disks
        if (facts := observed.disks.get(disk.name)) is not None and facts.data_as_of is not None
    ]
    return ServiceStatus(
        name=name,
        title=service.title,
        priority=service.priority,
        required=service.required,
        state=judged.state,
        reason=judged.reason,
        since=judged.since,
        elapsed=ready_at - observed.power_on if ready_at is not None else None,
        remaining=estimate,
        start=machine.start.value if machine else "",
        proof=machine.proof if machine and ready_at is not None else "",
        attempt=machine.attempt if machine else len(observed.failures.get(name, ())) + 1,
        address=str(service.address),
        data_as_of=max(staged, default=None),
        kept_aside=observed.overlays[name].aside if name in observed.overlays else 0,
    )


def _stranger(observed: Observed, name: str, judged: ServiceJudgement) -> ServiceStatus:
    """A machine that the plan in force does not name, while it is still there."""
    machine = observed.machines[name]
    guards = machine.made.guards if machine.made else ()
    return ServiceStatus(
        name=name,
        title=name,
        priority=5,
        required=False,
        state=judged.state,
        reason=judged.reason,
        since=judged.since,
        elapsed=None,
        remaining=None,
        start=machine.start.value,
        proof="",
        attempt=machine.attempt,
        address=str(guards[0].address) if guards else "",
        data_as_of=None,
        kept_aside=0,
    )


def _isolation(observed: Observed) -> IsolationStatus:
    proof = observed.proof
    problem = observed.isolation_problem
    if proof is None and not problem:
        problem = "the rules have not been proven yet"
    return IsolationStatus(
        proven=proof is not None and not observed.isolation_problem,
        proven_at=proof.at if proof else None,
        generation=proof.generation if proof else 0,
        uplink="dark",
        foreign_changes=observed.foreign_changes,
        problem=problem,
    )


def _next_action(outline: Outline, observed: Observed, turn: Round, state: RunState, plan_problem: str) -> str:
    """The most pressing thing for the operator, or that there is nothing to do."""
    if observed.isolation_problem:
        return "nothing was opened; see `cleanroomctl log`, and restart the enclosure if this lasts"
    if plan_problem:
        return f"correct the plan, or put the one before back; the one before stays in force: {plan_problem}"
    held = sorted(name for name, machine in observed.machines.items() if machine.held)
    if held:
        return f"make space on the data disk: {', '.join(held)} cannot write, and nothing is lost while they wait"
    found = match_ports(outline.plan, observed.interfaces)
    for zone in outline.plan.zones:
        interface = found.get(zone.port)
        if interface is None:
            return f"port {zone.port} is not there: check the enclosure's network card"
        if interface.up and not interface.carrier:
            return f"plug the clean switch into port {zone.port}: no cable is seen there"
    for name in outline.start_order:
        if turn.judgement.services[name].state is ServiceState.FAILED:
            return f"`cleanroomctl start {name}` tries {name} again; `cleanroomctl log` says what happened"
    if turn.judgement.admission.verdict.kind is not VerdictKind.ADMISSIBLE:
        finding = turn.judgement.admission.verdict.findings[0]
        return f"for {finding.service}: {finding.remedy}"
    if state is RunState.STOPPED:
        return "`cleanroomctl restore` starts the services again"
    outdated = [
        name
        for name, machine in observed.machines.items()
        if name in outline.services and is_outdated(outline, machine)
    ]
    if outdated:
        name = min(outdated, key=outline.start_order.index)
        return f"`cleanroomctl stop {name}`, then `start {name}`, when care can spare it: its plan has changed"
    stopped = [name for name in outline.start_order if turn.judgement.services[name].state is ServiceState.STOPPED]
    if stopped:
        return f"`cleanroomctl start {stopped[0]}` starts it again"
    return "nothing to do"
