"""What an operator may ask of the enclosure. Each request is recorded, then left to the loop."""

from collections.abc import AsyncIterator, Iterable, Mapping

from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.engine.loop import Engine
from cleanroomd.engine.publisher import Publisher
from cleanroomd.errors import ControlError
from cleanroomd.model.observed import Intent
from cleanroomd.model.status import Status


class Operator:
    """The enclosure as the control socket sees it."""

    def __init__(self, effects: Effects, engine: Engine, publisher: Publisher) -> None:
        self._effects = effects
        self._engine = engine
        self._publisher = publisher

    def status(self) -> Status:
        return self._publisher.status

    def subscribe(self) -> AsyncIterator[Status]:
        return self._publisher.subscribe()

    async def start(self, service: str) -> str:
        """Start `service` with everything that it needs; earlier failures no longer count."""
        outline = self._effects.outline
        self._know(service)
        wanted = [name for name in outline.start_order if name in outline.needs_of((service,))]
        await self._ask(wanted, Intent.RUN, f"start {service}")
        others = [name for name in wanted if name != service]
        return f"{service} is being started" + (f", after {', '.join(others)}" if others else "")

    async def stop(self, service: str) -> str:
        """Stop `service` and before it everything that needs it."""
        outline = self._effects.outline
        self._know(service)
        wanted = [name for name in outline.start_order if name in outline.needed_by((service,))]
        await self._ask(wanted, Intent.STOP, f"stop {service}")
        others = [name for name in wanted if name != service]
        return f"{service} is being stopped" + (f", after {', '.join(others)}" if others else "")

    async def restore(self) -> str:
        """Start everything that is not running; earlier failures no longer count."""
        names = self._effects.outline.start_order
        await self._ask(names, Intent.RUN, "restore")
        return f"{len(names)} services are being restored"

    async def shutdown(self) -> str:
        """Stop every machine, in reverse order; the daemon stays, and says when it is done."""
        names = self._effects.outline.start_order
        await self._ask(names, Intent.STOP, "shutdown")
        return f"{len(names)} services are being stopped, in reverse order"

    def journal(
        self, *, follow: bool, last: int | None = None, service: str = ""
    ) -> AsyncIterator[Mapping[str, object]]:
        return self._effects.journal.entries(follow=follow, last=last, service=service)

    def _know(self, service: str) -> None:
        if service not in self._effects.outline.services:
            raise ControlError(
                f"cannot find a service {service!r}: the plan has none of that name",
                f"the plan has {', '.join(self._effects.outline.start_order)}",
            )

    async def _ask(self, names: Iterable[str], intent: Intent, request: str) -> None:
        services = tuple(names)
        self._effects.journal.record(Event.OPERATOR, f"asked to {request}")
        if intent is Intent.RUN:
            await self._effects.record.clear_failures(services)
        await self._effects.record.set_intents(services, intent)
        self._engine.wake(f"operator: {request}")
