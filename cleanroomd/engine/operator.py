"""What an operator may ask of the enclosure. Each request is recorded, then left to the loop."""

from collections.abc import AsyncIterator, Iterable, Mapping

from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.engine.leasing import close_leases, open_lease
from cleanroomd.engine.loop import Engine
from cleanroomd.engine.proving import Prover
from cleanroomd.engine.publisher import Publisher
from cleanroomd.errors import ControlError
from cleanroomd.model.lesson import Lesson
from cleanroomd.model.observed import Intent
from cleanroomd.model.status import Status
from cleanroomd.model.verification import IsolationView, Verification
from cleanroomd.restore.learning import Attempt, learn


class Operator:
    """The enclosure as the control socket sees it."""

    def __init__(self, effects: Effects, engine: Engine, publisher: Publisher, prover: Prover) -> None:
        self._effects = effects
        self._engine = engine
        self._publisher = publisher
        self._prover = prover

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

    async def open_uplink(self, window: str, seconds: float, reason: str, author: str) -> str:
        """Open a window of the plan for so long; ControlError says what it is refused for."""
        said = await open_lease(self._effects, window, seconds, reason, author)
        self._engine.wake(f"operator: open {window}")
        return said

    async def close_uplink(self, window: str | None, author: str) -> str:
        """Close one window, or whatever is open."""
        said = await close_leases(self._effects, window, author)
        self._engine.wake(f"operator: close {window or 'the uplink'}")
        return said

    def isolation(self) -> IsolationView:
        return self._prover.view(self._effects.outline.plan)

    def learn(self) -> Lesson:
        """What was denied, as flows; only while nothing is signed, so that nobody edits a crisis into a plan."""
        if not self._publisher.status.unsealed:
            raise ControlError(
                "cannot learn flows: the plan and the vault of this enclosure are signed",
                "learn while staging, with a daemon that runs with --unsealed",
            )
        denied = self._effects.isolation.denied_flows()
        attempts = (
            Attempt(flow.source, flow.destination, flow.protocol, flow.port, tally.packets)
            for flow, tally in denied.items()
        )
        return learn(attempts, self._effects.outline)

    async def verify_isolation(self) -> Verification:
        """The live kernel against the posture in force; whoever asks is told, and nothing is changed."""
        return await self._prover.verify(self._effects.outline.plan)

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
