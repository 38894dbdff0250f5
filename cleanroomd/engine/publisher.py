"""The newest status, and everybody who waits for the next one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from cleanroomd.engine.journal import Event, Journal
from cleanroomd.model.status import ServiceState, ServiceStatus, Status


class Publisher:
    """Keeps one status. A subscriber that is slow misses the ones in between, never the newest."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._status: Status | None = None
        self._version = 0
        self._entered: dict[str, tuple[ServiceState, float]] = {}
        self._waiting: set[asyncio.Event] = set()
        self.first = asyncio.Event()
        """Set once there is a status at all."""

    @property
    def status(self) -> Status:
        """The newest status; only after `first` is set."""
        if self._status is None:
            raise RuntimeError("no status has been published yet")
        return self._status

    def publish(self, status: Status) -> None:
        """Make `status` the newest; what people would notice of the change goes into the journal."""
        before = self._status
        status = replace(status, services=tuple(self._dated(service, status) for service in status.services))
        self._status = status
        if before is not None and _substance(before) == _substance(status):
            return
        self._log(before, status)
        self._version += 1
        self.first.set()
        for event in self._waiting:
            event.set()

    async def subscribe(self) -> AsyncIterator[Status]:
        """The status as it is, then each newer one."""
        await self.first.wait()
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while True:
                changed.clear()
                yield self.status
                await changed.wait()
        finally:
            self._waiting.discard(changed)

    def _dated(self, service: ServiceStatus, status: Status) -> ServiceStatus:
        """`service` with the moment of its newest change of state, where nothing observed says when that was."""
        state, since = self._entered.get(service.name, (service.state, service.since))
        if state is not service.state:
            since = status.now
        if service.since > status.power_on:
            since = service.since
        self._entered[service.name] = (service.state, since)
        return replace(service, since=since)

    def _log(self, before: Status | None, status: Status) -> None:
        known = {service.name: service.state for service in before.services} if before else {}
        for service in status.services:
            if known.get(service.name) is not service.state:
                self._journal.record(
                    Event.SERVICE,
                    f"{service.state}, {service.reason}",
                    service=service.name,
                    state=service.state.value,
                )
        if before is None or before.state is not status.state:
            self._journal.record(Event.RUN, f"{status.state}: {status.verdict.summary}", state=status.state.value)
        if before is None or before.isolation.proven is not status.isolation.proven:
            isolation = status.isolation
            text = f"proven, generation {isolation.generation}" if isolation.proven else isolation.problem
            self._journal.record(Event.ISOLATION, f"isolation: {text}")


def _substance(status: Status) -> Status:
    """`status` without what changes by the mere passing of time."""
    return replace(
        status,
        now=0.0,
        remaining=None,
        services=tuple(replace(service, remaining=None, since=0.0) for service in status.services),
    )
