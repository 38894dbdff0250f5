"""Steps around readiness: ask, stop asking, and take the answer down."""

import asyncio

from cleanroomd.engine.effects import Effects
from cleanroomd.model.plan import StartKind
from cleanroomd.model.steps import DeclareReady, UnwatchReadiness, WatchReadiness
from cleanroomd.restore.desired import address_of


async def watch(step: WatchReadiness, effects: Effects) -> None:
    service = effects.outline.services[step.service]
    address = address_of(effects.launcher.facts().get(service.name), service)
    agent = effects.launcher.agent_socket(service.name)
    effects.probes.watch(service.name, service.ready, str(address), effects.on_answer, agent=agent)


async def unwatch(step: UnwatchReadiness, effects: Effects) -> None:
    effects.probes.unwatch(step.service)
    effects.answers.pop(step.service, None)


async def declare_ready(step: DeclareReady, effects: Effects) -> None:
    """Beside the crisis data first, that care writes to them from now on; then beside the machine.

    Flows that are open stay open when the daemon is restarted.
    """
    await asyncio.to_thread(effects.crisis.mark_opened, step.service)
    await effects.launcher.declare_ready(step.service, step.proof)
    facts = effects.launcher.facts()[step.service]
    if facts.start is StartKind.COLD and facts.running_at is not None and facts.ready_at is not None:
        await effects.record.set_duration(step.service, facts.ready_at - facts.running_at)
    await effects.record.clear_failures((step.service,))
    await effects.storage.look()
