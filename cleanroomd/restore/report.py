"""The status document, read off one judgement."""

from collections.abc import Iterator

from cleanroomd.model.observed import Observed
from cleanroomd.model.plan import Zone
from cleanroomd.model.posture import Posture
from cleanroomd.model.status import (
    IsolationStatus,
    LeaseStatus,
    PortState,
    PortStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    VerdictKind,
    WindowStatus,
)
from cleanroomd.restore.desired import zone_link
from cleanroomd.restore.estimate import remaining
from cleanroomd.restore.judgement import Judgement, ServiceJudgement, is_outdated
from cleanroomd.restore.leases import end_of, held_up, open_leases, words
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import judge_ports, match_ports
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
        isolation=_isolation(outline, observed, turn),
        verdict=judgement.admission.verdict,
        services=services,
        next_action=_next_action(outline, observed, turn, state, plan_problem),
        plan_problem=plan_problem,
        unsealed=unsealed,
        ports=_ports(outline, observed),
        drill=observed.drill,
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


def _ports(outline: Outline, observed: Observed) -> tuple[PortStatus, ...]:
    found = match_ports(outline.plan, observed.interfaces)
    return tuple(
        PortStatus(
            name=name,
            interface=found[name].name if name in found else "",
            state=judged.state,
            reason=judged.reason,
            notes=observed.heard[found[name].name].notes
            if name in found and found[name].name in observed.heard
            else (),
        )
        for name, judged in judge_ports(outline.plan, observed).items()
    )


def _port_advice(port: PortStatus) -> str | None:
    """What the operator should do about a port; None for nothing."""
    match port.state:
        case PortState.ABSENT:
            return f"port {port.name} is not there: {port.reason}; check the enclosure's network card"
        case PortState.UNPLUGGED if port.reason.startswith("no cable"):
            return f"plug the clean switch into port {port.name}: no cable is seen there"
        case PortState.FOREIGN:
            return (
                f"unplug the cable of port {port.name}, then plug the clean switch in there: the port {port.reason}; "
                "nothing is open there"
            )
        case PortState.LISTENING if port.reason.startswith(("heard", "cannot")):
            return f"port {port.name} stays closed: {port.reason}"
    return None


def _zone_problem(zone: Zone, observed: Observed) -> str | None:
    if zone.vlan is None:
        return None
    return observed.zone_problems.get(zone_link(zone.port, zone.vlan))


def _isolation(outline: Outline, observed: Observed, turn: Round) -> IsolationStatus:
    leases = tuple(_leases(outline, observed, turn.posture))
    proof = observed.proof
    problem = observed.isolation_problem
    if proof is None and not problem:
        problem = "the rules have not been proven yet"
    return IsolationStatus(
        proven=proof is not None and not observed.isolation_problem,
        proven_at=proof.at if proof else None,
        generation=proof.generation if proof else 0,
        uplink=_uplink(leases),
        leases=leases,
        windows=tuple(
            WindowStatus(name=window.name, flow=words(window), longest=window.longest)
            for window in outline.plan.windows
        ),
        foreign_changes=observed.foreign_changes,
        alarms=observed.alarms,
        problem=problem,
    )


def _leases(outline: Outline, observed: Observed, posture: Posture) -> Iterator[LeaseStatus]:
    for window, lease in open_leases(outline, observed).values():
        yield LeaseStatus(
            window=window.name,
            flow=words(window),
            opened_at=lease.opened_at,
            until=end_of(window, lease),
            author=lease.author,
            reason=lease.reason,
            problem=held_up(outline, observed, posture, window),
        )


def _uplink(leases: tuple[LeaseStatus, ...]) -> str:
    passing = [lease.window for lease in leases if not lease.problem]
    if passing:
        return f"open for {', '.join(passing)}"
    return "; ".join(["dark", *(f"{lease.window} is leased, but {lease.problem}" for lease in leases)])


def _next_action(outline: Outline, observed: Observed, turn: Round, state: RunState, plan_problem: str) -> str:
    """The most pressing thing for the operator, or that there is nothing to do."""
    standing = next((alarm for alarm in observed.alarms if not alarm.undone and alarm.remedy), None)
    if standing is not None:
        return f"{standing.what}, by {standing.who}: {standing.remedy}"
    if observed.isolation_problem:
        return "nothing was opened; see `cleanroomctl log`, and restart the enclosure if this lasts"
    if plan_problem:
        return f"correct the plan, or put the one before back; the one before stays in force: {plan_problem}"
    severed = sorted(name for name, machine in observed.machines.items() if machine.severed)
    if severed:
        return (
            f"wait a moment: {', '.join(severed)} was cut off and is being connected again; if that lasts, "
            f"`cleanroomctl stop {severed[0]}`, then `start {severed[0]}`"
        )
    held = sorted(name for name, machine in observed.machines.items() if machine.held)
    if held:
        return f"make space on the data disk: {', '.join(held)} cannot write, and nothing is lost while they wait"
    for port in _ports(outline, observed):
        if (advice := _port_advice(port)) is not None:
            return advice
    for zone in outline.plan.zones:
        if (problem := _zone_problem(zone, observed)) is not None:
            return f"zone {zone.name} stays closed: {problem}"
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
