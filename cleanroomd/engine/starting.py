"""Steps that bring a machine up: launched paused, then marked and let go."""

import asyncio

from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.errors import IsolationError, MachineError
from cleanroomd.model.observed import Made
from cleanroomd.model.plan import Firmware, StartKind
from cleanroomd.model.steps import LaunchMachine, RunMachine
from cleanroomd.restore.desired import planned_guards


async def launch(step: LaunchMachine, effects: Effects) -> None:
    """Overlays and what firmware remembers, then QEMU with its guest paused."""
    outline = effects.outline
    service = outline.services.get(step.service)
    if service is None:
        raise MachineError(f"cannot start {step.service}: the plan in force does not name it any more")
    images = await asyncio.to_thread(effects.images, service)
    variables = effects.crisis.variables(service.name) if service.firmware is Firmware.UEFI else None
    await effects.crisis.prepare(service.name, images, variables=variables)
    guards = planned_guards(outline, service)
    await effects.launcher.launch(
        service,
        taps=tuple(guard.interface for guard in guards),
        disks=images,
        memory=step.memory,
        start=step.start,
        attempt=step.attempt,
        made=Made(
            definition=outline.definitions[service.name],
            guards=guards,
            depends_on=service.depends_on,
            shutdown_timeout=service.shutdown_timeout,
        ),
        variables=variables,
    )
    await effects.storage.look()


async def run(step: RunMachine, effects: Effects) -> None:
    """The durable mark, a last look at the rules, the first instruction: in this order, always."""
    effects.answers.pop(step.service, None)
    machine = effects.launcher.facts().get(step.service)
    if machine is None or machine.start is StartKind.COLD:
        # What a cold start runs on is never set aside for a warm one: from its first instruction on it counts as
        # what care writes to, and no full disk can come between a correct answer and its flows.
        await asyncio.to_thread(effects.crisis.mark_opened, step.service)
    await asyncio.to_thread(effects.crisis.mark, step.service, {"plan": effects.outline.plan.digest})
    if not effects.isolation.holds():
        raise IsolationError(f"cannot run {step.service}: the rules changed since they were proven")
    await effects.launcher.run(step.service)
    effects.journal.record(Event.SERVICE, "first instruction", service=step.service)
    await effects.storage.look()
