"""The newest look at the disks. It is taken in a thread, so that a disk that is slow or hangs never holds the loop."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.observed import DiskFacts, OverlayFacts
from cleanroomd.restore.order import Outline
from cleanroomd.vault.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Look:
    disks: Mapping[str, DiskFacts] = field(default_factory=dict)
    overlays: Mapping[str, OverlayFacts] = field(default_factory=dict)


class Storage:
    """What is in the vault and among the crisis data. `on_change(description)` is called when that is news."""

    def __init__(
        self,
        outline: Outline,
        catalog: Catalog,
        crisis: CrisisStore,
        launcher: Launcher,
        on_change: Callable[[str], None],
    ) -> None:
        self._outline = outline
        self._catalog = catalog
        self._crisis = crisis
        self._launcher = launcher
        self._on_change = on_change
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.newest = Look()

    async def look(self) -> None:
        """Look now; when this returns `newest` is of after the call."""
        async with self._looking:
            self._take(await asyncio.to_thread(self._look, self._outline))

    async def switch(self, outline: Outline) -> None:
        """Look at what `outline` needs from now on; when this returns `newest` is of that."""
        async with self._looking:
            look = await asyncio.to_thread(self._look, outline)
            self._outline = outline
            self._take(look)

    def look_soon(self) -> None:
        """Have it looked at, unless somebody does already."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.look())

    def _take(self, look: Look) -> None:
        if look != self.newest:
            self.newest = look
            self._on_change("the vault or the crisis data changed")

    def _look(self, outline: Outline) -> Look:
        services = outline.plan.services
        self._launcher.bound_logs()
        return Look(
            disks={disk.name: self._catalog.disk(disk.name).facts for service in services for disk in service.disks},
            overlays=self._crisis.facts(service.name for service in services),
        )
