"""One judgement of what is observed: the state of every service, why, and what is to be done about it.

Steps and status are both read off it, so that the screen never says anything else than what the loop does.

    pending -> starting -> booting -> ready -> stopping -> stopped
       ^           |          |         |
       +-- (back-off) --------+---------+        failed: no attempt left, until the operator asks again
    blocked: something that it needs will not come    excluded: does not fit
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cleanroomd.model.observed import Intent, MachineFacts, MachinePhase, Observed
from cleanroomd.model.plan import Service, StartKind
from cleanroomd.model.status import ServiceState
from cleanroomd.model.steps import (
    DeclareReady,
    FailAttempt,
    LaunchMachine,
    RunMachine,
    Step,
    StopMachine,
    UnwatchReadiness,
    WatchReadiness,
)
from cleanroomd.model.units import format_duration, format_size
from cleanroomd.restore.admission import Admission, admit
from cleanroomd.restore.order import Outline

BACKOFF_FIRST = 2.0
BACKOFF_LONGEST = 60.0

_DEAD_ENDS = frozenset({ServiceState.FAILED, ServiceState.BLOCKED, ServiceState.EXCLUDED, ServiceState.STOPPED})
_ON_THE_WAY = frozenset({ServiceState.STARTING, ServiceState.BOOTING})


@dataclass(frozen=True, slots=True)
class ServiceJudgement:
    state: ServiceState
    reason: str
    since: float
    steps: tuple[Step, ...] = ()
    wake_at: float | None = None
    """When the judgement changes by itself, if nothing else happens."""


@dataclass(frozen=True, slots=True)
class Judgement:
    admission: Admission
    services: Mapping[str, ServiceJudgement]


def backoff(failures: int) -> float:
    """Seconds to wait after the `failures`-th failure in a row, doubling up to a minute."""
    return min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 10))


def judge(outline: Outline, observed: Observed) -> Judgement:
    """Judge every service; deterministic, and without any state of its own."""
    alive = {
        name: machine.memory for name, machine in observed.machines.items() if machine.phase is not MachinePhase.DEAD
    }
    admission = admit(outline, observed.capacity, observed.disks, alive)
    found: dict[str, ServiceJudgement] = {}
    for name in outline.topological:
        found[name] = _judge_one(outline, observed, admission, found, outline.services[name])
    _hand_out_slots(outline, observed, admission, found)
    return Judgement(admission, found)


def _judge_one(
    outline: Outline,
    observed: Observed,
    admission: Admission,
    earlier: Mapping[str, ServiceJudgement],
    service: Service,
) -> ServiceJudgement:
    name = service.name
    machine = observed.machines.get(name)
    stopped = observed.intents.get(name, Intent.RUN) is Intent.STOP
    if name in observed.busy:
        return _under_way(observed, name, machine)
    if machine is not None and machine.phase is MachinePhase.DEAD and not stopped:
        return ServiceJudgement(ServiceState.PENDING, machine.death, observed.now, (FailAttempt(name, machine.death),))
    if stopped:
        return _stop(outline, observed, service, machine)
    if machine is not None:
        return _run(observed, service, machine)
    return _wait(observed, admission, earlier, service)


def _under_way(observed: Observed, name: str, machine: MachineFacts | None) -> ServiceJudgement:
    step = observed.busy[name]
    since = machine.launched_at if machine else observed.now
    if isinstance(step, StopMachine):
        again = "" if observed.intents.get(name) is Intent.STOP else ", then starts again"
        return ServiceJudgement(ServiceState.STOPPING, f"{step}{again}", since)
    if observed.intents.get(name) is Intent.STOP:
        return ServiceJudgement(ServiceState.STOPPING, f"stops after this: {step}", since)
    if isinstance(step, FailAttempt):
        return ServiceJudgement(ServiceState.PENDING, step.reason, since)
    return ServiceJudgement(ServiceState.STARTING, str(step), since)


def _stop(outline: Outline, observed: Observed, service: Service, machine: MachineFacts | None) -> ServiceJudgement:
    name = service.name
    if machine is None:
        return ServiceJudgement(ServiceState.STOPPED, "stopped by the operator", observed.power_on)
    holders = [
        other
        for other in outline.dependants[name]
        if other in observed.machines and observed.intents.get(other) is Intent.STOP
    ]
    if holders:
        reason = f"stops after {', '.join(holders)}"
        return ServiceJudgement(ServiceState.STOPPING, reason, machine.launched_at)
    step = StopMachine(name, service.shutdown_timeout)
    return ServiceJudgement(ServiceState.STOPPING, "asked to power down", observed.now, (step,))


def _run(observed: Observed, service: Service, machine: MachineFacts) -> ServiceJudgement:
    name = service.name
    if machine.phase is MachinePhase.PAUSED:
        return _first_instruction(observed, name, machine)
    running_at = machine.running_at or machine.launched_at
    watch: tuple[Step, ...] = () if name in observed.watched else (WatchReadiness(name),)
    answer = observed.probes.get(name)
    if machine.ready_at is not None:
        reason = answer.detail if answer else "was ready; being asked again"
        if answer and not answer.ok:
            reason = f"does not answer now: {answer.detail}"
        return ServiceJudgement(ServiceState.READY, reason, machine.ready_at, watch)
    if answer and answer.ok and answer.at >= running_at:
        return ServiceJudgement(
            ServiceState.BOOTING, answer.detail, running_at, (*watch, DeclareReady(name, answer.detail))
        )
    # A daemon that finds a machine long since let go gives it the same time to answer its own probes.
    deadline = max(running_at, machine.adopted_at or running_at) + service.ready_timeout
    waits = answer.detail if answer else "waiting for the first answer"
    if observed.now >= deadline:
        reason = f"no correct answer within {format_duration(service.ready_timeout)}: {waits}"
        return ServiceJudgement(ServiceState.BOOTING, reason, running_at, (FailAttempt(name, reason),))
    return ServiceJudgement(ServiceState.BOOTING, waits, running_at, watch, deadline)


def _first_instruction(observed: Observed, name: str, machine: MachineFacts) -> ServiceJudgement:
    proof = observed.proof
    if proof is not None and name in proof.posture.guarded and not observed.isolation_problem:
        return ServiceJudgement(ServiceState.STARTING, "about to run", machine.launched_at, (RunMachine(name),))
    return ServiceJudgement(ServiceState.STARTING, "waits for proven isolation", machine.launched_at)


def _wait(
    observed: Observed,
    admission: Admission,
    earlier: Mapping[str, ServiceJudgement],
    service: Service,
) -> ServiceJudgement:
    name = service.name
    start = observed.power_on
    if name in admission.refusals:
        unusable = admission.refusals[name].startswith("disk ")
        state = ServiceState.BLOCKED if unusable else ServiceState.EXCLUDED
        return ServiceJudgement(state, admission.refusals[name], start)
    failures = observed.failures.get(name, ())
    if len(failures) > service.retries:
        last = failures[-1]
        return ServiceJudgement(ServiceState.FAILED, last.reason, last.at)
    for dependency in service.depends_on:
        if earlier[dependency].state in _DEAD_ENDS:
            reason = f"needs {dependency}, which is {earlier[dependency].state}"
            return ServiceJudgement(ServiceState.BLOCKED, reason, start)
    waits = [other for other in service.depends_on if earlier[other].state is not ServiceState.READY]
    if waits:
        return ServiceJudgement(ServiceState.PENDING, f"waits for {', '.join(waits)}", start)
    if failures:
        again = failures[-1].at + backoff(len(failures))
        if observed.now < again:
            reason = f"tries again soon; {failures[-1].reason}"
            return ServiceJudgement(ServiceState.PENDING, reason, failures[-1].at, wake_at=again)
    if observed.isolation_problem or observed.proof is None:
        return ServiceJudgement(ServiceState.PENDING, "waits for proven isolation", start)
    if name not in observed.proof.posture.guarded:
        return ServiceJudgement(ServiceState.PENDING, "waits for its tap", start)
    grant = admission.grants[name]
    launch = LaunchMachine(name, grant.start, len(failures) + 1, grant.memory)
    return ServiceJudgement(ServiceState.PENDING, "may start", start, (launch,))


def _hand_out_slots(
    outline: Outline, observed: Observed, admission: Admission, found: dict[str, ServiceJudgement]
) -> None:
    """Keep the launches that get a slot and the memory; the others wait, and say for what."""
    starting = [
        name
        for name, judgement in found.items()
        if judgement.state in _ON_THE_WAY and _start_kind(observed, admission, name) is StartKind.COLD
    ]
    slots = max(1, observed.capacity.slots) - len(starting)
    held = {
        name: _held_memory(observed, admission, name) + observed.capacity.overhead
        for name in observed.machines.keys() | observed.busy.keys()
    }
    free = observed.capacity.memory - sum(held.values())
    memory_is_kept = False
    for name in outline.start_order:
        judgement = found[name]
        launch = next((step for step in judgement.steps if isinstance(step, LaunchMachine)), None)
        if launch is None:
            continue
        cost = launch.memory + observed.capacity.overhead
        if memory_is_kept or cost > free:
            memory_is_kept = True
            reason = f"waiting for memory ({format_size(cost)} needed, {format_size(max(free, 0))} free)"
            found[name] = ServiceJudgement(ServiceState.PENDING, reason, judgement.since)
        elif launch.start is StartKind.COLD and slots <= 0:
            reason = f"waits for a start slot, taken by {', '.join(starting)}"
            found[name] = ServiceJudgement(ServiceState.PENDING, reason, judgement.since)
        else:
            free -= cost
            if launch.start is StartKind.COLD:
                slots -= 1
                starting.append(name)


def _start_kind(observed: Observed, admission: Admission, name: str) -> StartKind:
    machine = observed.machines.get(name)
    if machine is not None:
        return machine.start
    grant = admission.grants.get(name)
    return grant.start if grant else StartKind.COLD


def _held_memory(observed: Observed, admission: Admission, name: str) -> int:
    machine = observed.machines.get(name)
    if machine is not None:
        return 0 if machine.phase is MachinePhase.DEAD else machine.memory
    grant = admission.grants.get(name)
    return grant.memory if grant else 0


def unwatch_steps(outline: Outline, observed: Observed) -> tuple[Step, ...]:
    """Probes that still run although their machine does not."""
    running = {name for name, machine in observed.machines.items() if machine.phase is MachinePhase.RUNNING}
    known = [name for name in outline.services if name in observed.watched]
    strangers = sorted(observed.watched - set(known))
    return tuple(UnwatchReadiness(name) for name in (*known, *strangers) if name not in running)
