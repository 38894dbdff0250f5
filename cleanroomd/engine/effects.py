"""Everything that the steps act upon, in one place."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.engine.journal import Event, Journal
from cleanroomd.engine.record import Record
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher, now
from cleanroomd.model.observed import Failure, ProbeFacts
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
    probes: ProbeRunner
    on_answer: Callable[[str, ProbeFacts], None]
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
        self.record.add_failure(service, Failure(now(), reason))
        console = self.launcher.console_tail(service)
        fields = {"console": console} if console else {}
        self.journal.record(Event.SERVICE, f"attempt failed: {reason}", service=service, **fields)
        self.probes.unwatch(service)
        self.answers.pop(service, None)
        await self.launcher.end(service)
