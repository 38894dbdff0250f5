"""Crisis overlays: what care writes during a crisis, which exists nowhere else.

Nothing in this module, nor anywhere else, deletes an overlay. The durable `ran` mark precedes the first
instruction that could write to one; a service whose mark is there never gets a fresh overlay in its place.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

from cleanroomd.durable import make_directories, sync_directory, write_json
from cleanroomd.errors import MachineError
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.model.observed import OverlayFacts


class CrisisStore:
    """The overlays below `directory`, one folder per service."""

    def __init__(self, directory: Path, *, qemu_img: str = "qemu-img") -> None:
        self._directory = directory
        self._qemu_img = qemu_img

    def overlay(self, service: str, disk: str) -> Path:
        return self._directory / service / f"{disk}.qcow2"

    def facts(self, service: str) -> OverlayFacts:
        folder = self._directory / service
        return OverlayFacts(
            exists=any(folder.glob("*.qcow2")) if folder.is_dir() else False,
            marked=self._mark(service).exists(),
        )

    async def prepare(self, service: str, disks: tuple[DiskImage, ...]) -> None:
        """Make the overlays that do not exist yet; those that do are left exactly as they are.

        Raises MachineError when an overlay is missing although the machine has run: its data are then somewhere
        else, and a fresh overlay would hide that.
        """
        folder = self._directory / service
        make_directories(folder, durable_below=self._directory.parent)
        missing = [disk for disk in disks if not disk.overlay.exists()]
        if missing and self._mark(service).exists():
            raise MachineError(
                f"cannot start {service}: its crisis data for disk {missing[0].name} are gone",
                f"put {missing[0].overlay} back; nothing was started, so that nothing is written beside it",
            )
        for disk in missing:
            await self._create(disk)

    def mark(self, service: str, facts: Mapping[str, object]) -> None:
        """Write the `ran` mark, durably; to be called before the first instruction, every time."""
        if not self._mark(service).exists():
            write_json(self._mark(service), {"first_run": time.time(), **facts})

    def _mark(self, service: str) -> Path:
        return self._directory / service / "ran"

    async def _create(self, disk: DiskImage) -> None:
        temporary = disk.overlay.with_name(f".{disk.overlay.name}")
        temporary.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *(self._qemu_img, "create", "-q", "-f", "qcow2"),
            *("-b", str(disk.golden), "-F", disk.golden_format, str(temporary)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            cause = said.decode(errors="replace").strip().removeprefix("qemu-img: ")
            raise MachineError(
                f"cannot make a crisis overlay on disk {disk.name}: {cause}",
                "check the free space on the data disk and that the image in the vault is whole",
            )
        fd = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(disk.overlay)
        sync_directory(disk.overlay.parent)
