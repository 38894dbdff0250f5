"""Steps that bring a machine up: launched paused, then marked and let go."""

from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.errors import IsolationError
from cleanroomd.model.plan import Firmware
from cleanroomd.model.steps import LaunchMachine, RunMachine
from cleanroomd.restore.desired import tap_name


async def launch(step: LaunchMachine, effects: Effects) -> None:
    """Overlays and what firmware remembers, then QEMU with its guest paused."""
    service = effects.outline.services[step.service]
    images = effects.images(service)
    variables = effects.crisis.variables(service.name) if service.firmware is Firmware.UEFI else None
    await effects.crisis.prepare(service.name, images, variables=variables)
    await effects.launcher.launch(
        service,
        tap=tap_name(service.name),
        disks=images,
        memory=step.memory,
        start=step.start,
        attempt=step.attempt,
        variables=variables,
    )


async def run(step: RunMachine, effects: Effects) -> None:
    """The durable mark, a last look at the rules, the first instruction: in this order, always."""
    effects.answers.pop(step.service, None)
    effects.crisis.mark(step.service, {"plan": effects.outline.plan.digest})
    if not effects.isolation.holds():
        raise IsolationError(f"cannot run {step.service}: the rules changed since they were proven")
    await effects.launcher.run(step.service)
    effects.journal.record(Event.SERVICE, "first instruction", service=step.service)
