"""Steps that end a machine: on request, or because an attempt came to nothing."""

from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.model.observed import MachinePhase
from cleanroomd.model.steps import FailAttempt, FallBack, SetAside, StopMachine


async def fail_attempt(step: FailAttempt, effects: Effects) -> None:
    await effects.fail(step.service, step.reason)


async def fall_back(step: FallBack, effects: Effects) -> None:
    await effects.fall_back(step.service, step.reason)


async def set_aside(step: SetAside, effects: Effects) -> None:
    await effects.set_aside(step.service)


async def stop(step: StopMachine, effects: Effects) -> None:
    """Graceful first; how it went is in the journal, with the time it took."""
    machine = effects.launcher.facts().get(step.service)
    effects.probes.unwatch(step.service)
    effects.answers.pop(step.service, None)
    outcome = await effects.launcher.stop(step.service, step.timeout)
    if machine is not None and machine.phase is MachinePhase.DEAD:
        outcome = machine.death
    effects.journal.record(Event.SERVICE, outcome, service=step.service)
