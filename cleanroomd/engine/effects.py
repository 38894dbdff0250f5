"""Everything that the steps act upon, in one place."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cleanroomd.clock import now
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.engine.journal import Event, Journal
from cleanroomd.engine.listening import CareListening
from cleanroomd.engine.record import Record
from cleanroomd.engine.storage import Storage
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.observed import Failure, Fallback, ProbeFacts
from cleanroomd.model.plan import Service
from cleanroomd.probes.runner import ProbeRunner
from cleanroomd.restore.order import Outline
from cleanroomd.vault.catalog import Catalog


@dataclass
class Effects:
    outline: Outline
    journal: Journal
    record: Record
    isolation: IsolationControl
    launcher: Launcher
    crisis: CrisisStore
    catalog: Catalog
    storage: Storage
    probes: ProbeRunner
    listening: CareListening
    on_answer: Callable[[str, ProbeFacts], None]
    drill: bool = False
    """An exercise: the uplink never opens."""
    answers: dict[str, ProbeFacts] = field(default_factory=dict)
    """The newest answer of each watched service."""

    def images(self, service: Service) -> tuple[DiskImage, ...]:
        found = []
        for disk in service.disks:
            image = self.catalog.disk(disk.name)
            overlay = self.crisis.overlay(service.name, disk.name)
            found.append(DiskImage(disk.name, image.path, image.format, overlay))
        return tuple(found)

    async def fail(self, service: str, reason: str) -> None:
        """End an attempt: account for it first, so that a crash here cannot repeat it for ever."""
        await self.record.add_failure(service, Failure(now(), reason))
        self._say_ended(service, f"attempt failed: {reason}")
        await self.launcher.end(service)

    async def fall_back(self, service: str, reason: str) -> None:
        """End a warm start: accounted for first too, and complete only once what it wrote is aside."""
        await self.record.set_fallback(service, Fallback(reason, complete=False))
        self._say_ended(service, f"warm start came to nothing, going on cold: {reason}")
        await self.launcher.end(service)
        await self.set_aside(service)
        await self.record.set_fallback(service, Fallback(reason, complete=True))

    async def set_aside(self, service: str) -> None:
        """Of a service that does not run."""
        aside = await asyncio.to_thread(self.crisis.set_aside, service)
        if aside is not None:
            self.journal.record(Event.SERVICE, f"its overlays are kept as {aside}", service=service)
        await self.storage.look()

    def _say_ended(self, service: str, text: str) -> None:
        said = {"console": self.launcher.console_tail(service), "qemu": self.launcher.qemu_tail(service)}
        self.journal.record(
            Event.SERVICE, text, service=service, **{key: words for key, words in said.items() if words}
        )
        self.probes.unwatch(service)
        self.answers.pop(service, None)
