"""One judgement of what is observed: the state of every service, why, and what is to be done about it.

Steps and status are both read off it, so that the screen never says anything else than what the loop does.

    pending -> starting -> booting -> ready -> stopping -> stopped
       ^           |          |         |
       +-- (back-off) --------+---------+        failed: no attempt left, until the operator asks again
       +-- (cold, after a warm start that came to nothing: the same attempt)
    blocked: something that it needs will not come    excluded: does not fit
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cleanroomd.model.observed import Intent, MachineFacts, MachinePhase, Observed, OverlayFacts
from cleanroomd.model.plan import Service, StartKind
from cleanroomd.model.posture import Proof, TapGuard
from cleanroomd.model.status import ServiceState
from cleanroomd.model.steps import (
    DeclareReady,
    FailAttempt,
    FallBack,
    LaunchMachine,
    RejoinTap,
    RunMachine,
    SetAside,
    Step,
    StopMachine,
    UnwatchReadiness,
    WatchReadiness,
)
from cleanroomd.model.units import format_duration, format_size
from cleanroomd.restore.admission import Admission, admit
from cleanroomd.restore.desired import guards
from cleanroomd.restore.order import Outline
from cleanroomd.restore.warmth import WARM_TIMEOUT, cold_causes

BACKOFF_FIRST = 2.0
BACKOFF_LONGEST = 60.0
STRANGER_TIMEOUT = 90.0
"""Seconds for a machine to power down of which neither a plan nor a record says how long it may take."""

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
    strangers: Mapping[str, ServiceJudgement]
    """Machines that run although the plan in force does not name them."""


def backoff(failures: int) -> float:
    """Seconds to wait after the `failures`-th failure in a row, doubling up to a minute."""
    return min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 10))


def judge(outline: Outline, observed: Observed) -> Judgement:
    """Judge every service; deterministic, and without any state of its own."""
    held = _held(observed)
    # What a stranger holds is free again before long: it keeps a start waiting, and excludes nobody.
    running = {name: memory for name, memory in held.items() if name in outline.services}
    admission = admit(outline, observed.capacity, observed.disks, running, cold_causes(outline, observed))
    found: dict[str, ServiceJudgement] = {}
    for name in outline.topological:
        found[name] = _judge_one(outline, observed, admission, found, outline.services[name])
    _hand_out_slots(outline, observed, admission, found, free=observed.capacity.memory - _cost(observed, held))
    return Judgement(admission, found, dict(_judge_strangers(outline, observed)))


def _held(observed: Observed) -> Mapping[str, int]:
    """Service -> bytes of each guest that is there or being made."""
    held = {name: step.memory for name, step in observed.busy.items() if isinstance(step, LaunchMachine)}
    alive = ((name, each.memory) for name, each in observed.machines.items() if each.phase is not MachinePhase.DEAD)
    return {**held, **dict(alive)}


def _cost(observed: Observed, held: Mapping[str, int]) -> int:
    return sum(memory + observed.capacity.overhead for memory in held.values())


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
    fallback = observed.fallbacks.get(name)
    if fallback is not None and not fallback.complete:
        step = FallBack(name, fallback.reason)
        return ServiceJudgement(ServiceState.PENDING, str(step), observed.now, (step,))
    if machine is not None and machine.phase is MachinePhase.DEAD and not stopped:
        ending = _give_up(observed, machine, machine.death)
        return ServiceJudgement(ServiceState.PENDING, machine.death, observed.now, (ending,))
    if stopped:
        return _stop(outline, observed, service, machine)
    if machine is not None:
        judged = _run(outline, observed, service, machine)
        return _severed(outline, observed, judged, machine) if machine.severed else judged
    return _wait(outline, observed, admission, earlier, service)


def _under_way(observed: Observed, name: str, machine: MachineFacts | None) -> ServiceJudgement:
    step = observed.busy[name]
    since = machine.launched_at if machine else observed.now
    if isinstance(step, StopMachine):
        again = "" if observed.intents.get(name) is Intent.STOP else ", then starts again"
        return ServiceJudgement(ServiceState.STOPPING, f"{step}{again}", since)
    if observed.intents.get(name) is Intent.STOP:
        return ServiceJudgement(ServiceState.STOPPING, f"stops after this: {step}", since)
    if isinstance(step, DeclareReady):
        running_at = machine.running_at if machine else None
        return ServiceJudgement(ServiceState.BOOTING, step.proof, running_at or since)
    if isinstance(step, FailAttempt | SetAside | FallBack):
        return ServiceJudgement(ServiceState.PENDING, step.reason, since)
    return ServiceJudgement(ServiceState.STARTING, str(step), since)


def _give_up(observed: Observed, machine: MachineFacts, reason: str) -> FailAttempt | FallBack:
    """A warm start that nobody can have used yet does not cost the attempt."""
    opened = machine.ready_at is not None or observed.overlays.get(machine.service, OverlayFacts()).opened
    if machine.start is StartKind.WARM and not opened:
        return FallBack(machine.service, reason)
    return FailAttempt(machine.service, reason)


def _judge_strangers(outline: Outline, observed: Observed) -> Iterator[tuple[str, ServiceJudgement]]:
    """Machines that no plan in force names: powered down in reverse order, their crisis data kept."""
    strangers = {name: each for name, each in sorted(observed.machines.items()) if name not in outline.services}
    holders = {name: [other for other in strangers if name in _needs(strangers[other])] for name in strangers}
    if all(holders.values()):
        # Left over from several plans, they may hold each other up in a circle.
        holders = {name: [] for name in strangers}
    for name, machine in strangers.items():
        since = machine.launched_at
        if name in observed.busy:
            yield name, _under_way(observed, name, machine)
        elif holders[name]:
            reason = f"the plan in force does not name it; stops after {', '.join(holders[name])}"
            yield name, ServiceJudgement(ServiceState.STOPPING, reason, since)
        else:
            step = StopMachine(name, machine.made.shutdown_timeout if machine.made else STRANGER_TIMEOUT)
            reason = "the plan in force does not name it; asked to power down"
            yield name, ServiceJudgement(ServiceState.STOPPING, reason, since, (step,))


def _needs(machine: MachineFacts) -> tuple[str, ...]:
    return machine.made.depends_on if machine.made else ()


def _stop(outline: Outline, observed: Observed, service: Service, machine: MachineFacts | None) -> ServiceJudgement:
    name = service.name
    if machine is None:
        return ServiceJudgement(ServiceState.STOPPED, "stopped by the operator", observed.power_on)
    holders = [
        other
        for other in outline.dependants[name]
        if other in observed.machines and observed.intents.get(other) is Intent.STOP
    ]
    holders += sorted(
        other
        for other, each in observed.machines.items()
        if other not in outline.services and each.phase is not MachinePhase.DEAD and name in _needs(each)
    )
    if holders:
        reason = f"stops after {', '.join(holders)}"
        return ServiceJudgement(ServiceState.STOPPING, reason, machine.launched_at)
    step = StopMachine(name, service.shutdown_timeout)
    return ServiceJudgement(ServiceState.STOPPING, "asked to power down", observed.now, (step,))


def _run(outline: Outline, observed: Observed, service: Service, machine: MachineFacts) -> ServiceJudgement:
    name = service.name
    if machine.phase is MachinePhase.PAUSED:
        return _first_instruction(outline, observed, name, machine)
    running_at = machine.running_at or machine.launched_at
    watch: tuple[Step, ...] = () if name in observed.watched else (WatchReadiness(name),)
    answer = observed.probes.get(name)
    if machine.ready_at is not None:
        reason = answer.detail if answer else "was ready; being asked again"
        if answer and not answer.ok:
            reason = f"does not answer now: {answer.detail}"
        if machine.held:
            reason = "held: there is no space for what it writes; it goes on by itself once there is"
        if is_outdated(outline, machine):
            reason += "; it runs as an earlier plan described it"
        return ServiceJudgement(ServiceState.READY, reason, machine.ready_at, watch)
    if answer and answer.ok and answer.at >= running_at:
        return ServiceJudgement(
            ServiceState.BOOTING, answer.detail, running_at, (*watch, DeclareReady(name, answer.detail))
        )
    # A daemon that finds a machine long since let go gives it the same time to answer its own probes.
    patience = min(WARM_TIMEOUT, service.ready_timeout) if machine.start is StartKind.WARM else service.ready_timeout
    deadline = max(running_at, machine.adopted_at or running_at) + patience
    waits = answer.detail if answer else "waiting for the first answer"
    if observed.now >= deadline:
        reason = f"no correct answer within {format_duration(patience)}: {waits}"
        ending = _give_up(observed, machine, reason)
        return ServiceJudgement(ServiceState.BOOTING, reason, running_at, (ending,))
    return ServiceJudgement(ServiceState.BOOTING, waits, running_at, watch, deadline)


def _severed(outline: Outline, observed: Observed, judged: ServiceJudgement, machine: MachineFacts) -> ServiceJudgement:
    """A machine whose tap somebody deleted: it runs on, and is connected again once the new tap is guarded."""
    reason = f"cut off: {', '.join(machine.severed)} was deleted under it; it is being connected again"
    steps = tuple(step for step in judged.steps if not isinstance(step, RunMachine))
    proof = observed.proof
    taps = guards(outline, observed, machine.service)
    if proof is not None and not observed.isolation_problem and _guarded(taps, proof):
        joins = (RejoinTap(machine.service, tap) for tap in machine.severed if tap in observed.taps)
        steps = (*joins, *steps)
    return replace(judged, reason=reason, steps=steps)


def is_outdated(outline: Outline, machine: MachineFacts) -> bool:
    """Whether `machine` was made from another definition than the plan in force has of it."""
    return machine.made is not None and machine.made.definition != outline.definitions[machine.service]


def _first_instruction(outline: Outline, observed: Observed, name: str, machine: MachineFacts) -> ServiceJudgement:
    proof = observed.proof
    taps = guards(outline, observed, name)
    if proof is not None and not observed.isolation_problem and _guarded(taps, proof):
        return ServiceJudgement(ServiceState.STARTING, "about to run", machine.launched_at, (RunMachine(name),))
    return ServiceJudgement(ServiceState.STARTING, "waits for proven isolation", machine.launched_at)


def _wait(
    outline: Outline,
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
    if not _guarded(guards(outline, observed, name), observed.proof):
        return ServiceJudgement(ServiceState.PENDING, "waits for its tap", start)
    grant = admission.grants[name]
    if grant.start is StartKind.WARM and observed.overlays.get(name, OverlayFacts()).exists:
        aside = SetAside(name, "a warm start begins on fresh ones, and no flow was ever open to these")
        return ServiceJudgement(ServiceState.PENDING, str(aside), start, (aside,))
    launch = LaunchMachine(name, grant.start, len(failures) + 1, grant.memory, grant.because)
    return ServiceJudgement(ServiceState.PENDING, "may start", start, (launch,))


def _guarded(taps: tuple[TapGuard, ...], proof: Proof) -> bool:
    """Whether each of `taps` has its guard, with the addresses that its machine has, in the rules that are in force."""
    return all((tap.interface, tap.mac, tap.address) in proof.posture.guarded for tap in taps)


def _hand_out_slots(
    outline: Outline,
    observed: Observed,
    admission: Admission,
    found: dict[str, ServiceJudgement],
    *,
    free: int,
) -> None:
    """Keep the launches that get a slot and the memory; the others wait, and say for what."""
    starting = [
        name
        for name, judgement in found.items()
        if judgement.state in _ON_THE_WAY and start_kind(observed, admission, name) is StartKind.COLD
    ]
    slots = max(1, observed.capacity.slots) - len(starting)
    kept_for = ""
    for name in outline.start_order:
        judgement = found[name]
        launch = next((step for step in judgement.steps if isinstance(step, LaunchMachine)), None)
        if launch is None:
            continue
        cost = launch.memory + observed.capacity.overhead
        if kept_for:
            found[name] = ServiceJudgement(
                ServiceState.PENDING, f"waits for memory, after {kept_for}, which is more urgent", judgement.since
            )
        elif cost > free:
            kept_for = name
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


def start_kind(observed: Observed, admission: Admission, name: str) -> StartKind:
    """How the machine of a service started, or would start now."""
    machine = observed.machines.get(name)
    if machine is not None:
        return machine.start
    step = observed.busy.get(name)
    if isinstance(step, LaunchMachine):
        return step.start
    grant = admission.grants.get(name)
    return grant.start if grant else StartKind.COLD


def unwatch_steps(outline: Outline, observed: Observed) -> tuple[Step, ...]:
    """Probes that still run although their machine does not."""
    running = {name for name, machine in observed.machines.items() if machine.phase is MachinePhase.RUNNING}
    known = [name for name in outline.services if name in observed.watched]
    strangers = sorted(observed.watched - set(known))
    return tuple(UnwatchReadiness(name) for name in (*known, *strangers) if name not in running)
