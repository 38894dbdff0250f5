"""A whole restoration played through in thought: what a dry run prints, and what the order is tested with."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from cleanroomd.model.listening import Heard
from cleanroomd.model.observed import (
    Deadline,
    Failure,
    Fallback,
    Interface,
    MachineFacts,
    MachinePhase,
    Made,
    Observed,
    OverlayFacts,
    ProbeFacts,
)
from cleanroomd.model.plan import StartKind
from cleanroomd.model.posture import Proof
from cleanroomd.model.steps import (
    ApplyRules,
    DeclareReady,
    EndLease,
    FailAttempt,
    FallBack,
    HoldDeadline,
    LaunchMachine,
    MakeTap,
    MakeZoneLink,
    RejoinTap,
    RemoveZoneLink,
    RunMachine,
    SetAside,
    SetLink,
    Step,
    StopMachine,
    UnwatchReadiness,
    WatchReadiness,
)
from cleanroomd.restore.desired import planned_guards
from cleanroomd.restore.estimate import assumed_duration
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile

Duration = Callable[[MachineFacts], float | None]
"""A machine that runs -> seconds from its first instruction to a correct answer; None if it never answers."""


def rehearse(outline: Outline, observed: Observed, duration: Duration | None = None) -> Iterator[tuple[float, Step]]:
    """Every step with its instant, until nothing is left to do.

    `duration` defaults to what was measured before or is assumed. Steps succeed at once; time passes only
    while machines boot and while back-offs last.
    """
    take = duration or (lambda machine: assumed_duration(observed, machine.service, machine.start))
    while True:
        turn = reconcile(outline, observed)
        for step in turn.steps:
            yield observed.now, step
            observed = outcome(outline, step, observed)
        if turn.steps:
            continue
        instants = [] if turn.wake_at is None else [turn.wake_at]
        answers = {}
        for name, machine in observed.machines.items():
            if machine.phase is MachinePhase.RUNNING and machine.ready_at is None and machine.running_at is not None:
                seconds = take(machine)
                if seconds is not None:
                    answers[name] = machine.running_at + seconds
        instants.extend(answers.values())
        if not instants:
            return
        observed = replace(observed, now=max(observed.now, min(instants)))
        ready = {name for name, at in answers.items() if at <= observed.now}
        probes = {name: ProbeFacts(ok=True, detail="answered", at=observed.now) for name in ready}
        observed = replace(observed, probes={**observed.probes, **probes})


def outcome(outline: Outline, step: Step, observed: Observed) -> Observed:
    """What is observed once `step` has succeeded."""
    match step:
        case MakeTap():
            return replace(observed, taps=observed.taps | {step.interface})
        case ApplyRules():
            generation = observed.proof.generation + 1 if observed.proof else 1
            return replace(observed, proof=Proof(step.posture, generation, "", observed.now))
        case SetLink():
            changed = tuple(
                _set(interface, step) if interface.name == step.interface else interface
                for interface in observed.interfaces
            )
            return replace(observed, interfaces=changed, heard=_listen(observed, step))
        case MakeZoneLink():
            link = Interface(step.interface, _mac(observed, step.parent), parent=step.parent, vlan=step.vlan)
            return replace(observed, interfaces=(*observed.interfaces, link))
        case RemoveZoneLink():
            others = tuple(each for each in observed.interfaces if each.name != step.interface)
            return replace(observed, interfaces=others)
        case HoldDeadline():
            deadline = None if step.until is None else Deadline(step.interface, step.until)
            return replace(observed, deadline=deadline)
        case EndLease():
            return replace(observed, leases=_without(observed.leases, step.window))
        case RejoinTap():
            machine = observed.machines[step.service]
            left = tuple(tap for tap in machine.severed if tap != step.interface)
            return replace(observed, machines={**observed.machines, step.service: replace(machine, severed=left)})
        case WatchReadiness():
            return replace(observed, watched=observed.watched | {step.service})
        case UnwatchReadiness():
            return replace(observed, watched=observed.watched - {step.service})
        case _:
            return _machine_outcome(outline, step, observed)


def _machine_outcome(
    outline: Outline,
    step: LaunchMachine | RunMachine | DeclareReady | FailAttempt | SetAside | FallBack | StopMachine,
    observed: Observed,
) -> Observed:
    name = step.service
    now = observed.now
    machine = observed.machines.get(name)
    match step:
        case LaunchMachine():
            service = outline.services[name]
            made = Made(
                definition=outline.definitions[name],
                guards=planned_guards(outline, service),
                depends_on=service.depends_on,
                shutdown_timeout=service.shutdown_timeout,
            )
            facts = MachineFacts(
                name, 0, MachinePhase.PAUSED, step.start, step.attempt, step.memory, launched_at=now, made=made
            )
            return _with(observed, name, facts, overlays=_overlay(observed, name, exists=True))
        case RunMachine() if machine is not None:
            overlays = _overlay(observed, name, marked=True, opened=machine.start is StartKind.COLD)
            running = replace(machine, phase=MachinePhase.RUNNING, running_at=now)
            return _with(observed, name, running, overlays=overlays, probes=_without(observed.probes, name))
        case DeclareReady() if machine is not None:
            ready = replace(machine, ready_at=now, proof=step.proof)
            return _with(
                observed,
                name,
                ready,
                overlays=_overlay(observed, name, opened=True),
                failures=_without(observed.failures, name),
                fallbacks=_without(observed.fallbacks, name),
            )
        case SetAside():
            return replace(observed, overlays=_aside(observed, name))
        case FallBack():
            fallbacks = {**observed.fallbacks, name: Fallback(step.reason, complete=True)}
            return replace(_gone(observed, name), overlays=_aside(observed, name), fallbacks=fallbacks)
        case FailAttempt():
            failures = (*observed.failures.get(name, ()), Failure(now, step.reason))
            gone = _gone(observed, name)
            return replace(gone, failures={**observed.failures, name: failures})
        case StopMachine():
            return _gone(observed, name)
        case _:
            return observed


def _overlay(observed: Observed, name: str, **changes: bool) -> dict[str, OverlayFacts]:
    return {**observed.overlays, name: replace(observed.overlays.get(name, OverlayFacts()), **changes)}


def _aside(observed: Observed, name: str) -> dict[str, OverlayFacts]:
    before = observed.overlays.get(name, OverlayFacts())
    return {**observed.overlays, name: OverlayFacts(aside=before.aside + before.exists)}


def _gone(observed: Observed, name: str) -> Observed:
    return replace(
        observed,
        machines=_without(observed.machines, name),
        probes=_without(observed.probes, name),
        watched=observed.watched - {name},
    )


def _with(observed: Observed, name: str, facts: MachineFacts, **changes: Any) -> Observed:
    return replace(observed, machines={**observed.machines, name: facts}, **changes)


def _without(mapping: Any, name: str) -> Any:
    return {key: value for key, value in mapping.items() if key != name}


def _set(interface: Interface, step: SetLink) -> Interface:
    carrier = step.up and (interface.carrier or not interface.up)
    addresses = frozenset(step.addresses)
    return replace(interface, up=step.up, carrier=carrier, addresses=addresses, found=step.found)


def _listen(observed: Observed, step: SetLink) -> dict[str, Heard]:
    """A port that comes up is listened to from then on; in thought it has its cable, and hears nothing."""
    heard = _without(observed.heard, step.interface)
    if step.up:
        heard[step.interface] = observed.heard.get(step.interface, Heard(_changes(observed, step), observed.now))
    return heard  # type: ignore[no-any-return]


def _changes(observed: Observed, step: SetLink) -> int:
    return next(each.carrier_changes for each in observed.interfaces if each.name == step.interface)


def _mac(observed: Observed, name: str) -> str:
    return next((each.mac for each in observed.interfaces if each.name == name), "")
