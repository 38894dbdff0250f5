"""Steps around readiness: ask, stop asking, and take the answer down."""

from cleanroomd.engine.effects import Effects
from cleanroomd.model.steps import DeclareReady, UnwatchReadiness, WatchReadiness


async def watch(step: WatchReadiness, effects: Effects) -> None:
    service = effects.outline.services[step.service]
    effects.probes.watch(service.name, service.ready, str(service.address), effects.on_answer)


async def unwatch(step: UnwatchReadiness, effects: Effects) -> None:
    effects.probes.unwatch(step.service)
    effects.answers.pop(step.service, None)


async def declare_ready(step: DeclareReady, effects: Effects) -> None:
    """Recorded beside the machine first: flows that are open stay open when the daemon is restarted."""
    effects.launcher.declare_ready(step.service, step.proof)
    facts = effects.launcher.facts()[step.service]
    if facts.running_at is not None and facts.ready_at is not None:
        effects.record.set_duration(step.service, facts.ready_at - facts.running_at)
    effects.record.clear_failures((step.service,))
