"""Crisis data: overlays with what care writes during a crisis, which exists nowhere else.

Nothing in this module, nor anywhere else, deletes an overlay. The durable `ran` mark precedes the first
instruction that could write to one; a service whose mark is there never gets a fresh overlay in its place.
The same holds for what a machine's UEFI firmware remembers, such as which system of its disks it boots.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cleanroomd.durable import make_directories, read_json, sync_directory, write_json
from cleanroomd.errors import MachineError
from cleanroomd.machine.arguments import UEFI_CODE, DiskImage
from cleanroomd.model.observed import OverlayFacts

UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""What the firmware `UEFI_CODE` remembers when it has never run."""

_MARK = "ran"
_CREATE_DEADLINE = 60.0
_REAP_GRACE = 5.0


class CrisisStore:
    """The crisis data below `directory`, one folder per service."""

    def __init__(
        self,
        directory: Path,
        *,
        qemu_img: str = "qemu-img",
        uefi_code: Path = UEFI_CODE,
        uefi_variables: Path = UEFI_VARIABLES,
    ) -> None:
        self._directory = directory
        self._qemu_img = qemu_img
        self._uefi_code = uefi_code
        self._uefi_variables = uefi_variables

    def overlay(self, service: str, disk: str) -> Path:
        return self._directory / service / f"{disk}.qcow2"

    def variables(self, service: str) -> Path:
        """What the UEFI firmware of `service` remembers, where it has such firmware."""
        return self._directory / service / "uefi-vars.fd"

    def facts(self, service: str) -> OverlayFacts:
        """An answer that cannot be had is "marked": the one that keeps everything as it is."""
        try:
            names = [entry.name for entry in (self._directory / service).iterdir()]
        except FileNotFoundError:
            return OverlayFacts()
        except OSError:
            return OverlayFacts(exists=True, marked=True)
        overlays = any(name.endswith(".qcow2") and not name.startswith(".") for name in names)
        return OverlayFacts(exists=overlays, marked=_MARK in names)

    async def prepare(self, service: str, disks: tuple[DiskImage, ...], *, variables: Path | None = None) -> None:
        """Make the overlays, and `variables` for UEFI, that do not exist yet; what does is left exactly as it is.

        Raises MachineError when one of them is missing although the machine has run: its data are then somewhere
        else, and a fresh overlay would hide that. And when the image below an overlay is no longer the one that
        it was made on: an overlay holds the blocks that differ, so that another image below it makes both worthless.
        """
        folder = self._directory / service
        make_directories(folder, durable_below=self._directory.parent)
        missing = [disk for disk in disks if not _is_there(disk.overlay)]
        if missing and _is_there(self._mark(service)):
            raise MachineError(
                f"cannot start {service}: its crisis data for disk {missing[0].name} are gone",
                f"put {missing[0].overlay} back; nothing was started, so that nothing is written beside it",
            )
        if variables is not None:
            self._prepare_variables(service, variables)
        for disk in disks:
            if disk in missing:
                await self._create(disk)
            else:
                _check_base(service, disk)

    def _prepare_variables(self, service: str, variables: Path) -> None:
        if not self._uefi_code.is_file():
            raise _no_firmware(service, self._uefi_code, "no such file")
        if _is_there(variables):
            return
        if _is_there(self._mark(service)):
            raise MachineError(
                f"cannot start {service}: what its UEFI firmware remembered is gone",
                f"put {variables} back; if it only ever ran with BIOS firmware, copy {self._uefi_variables} there",
            )
        try:
            fresh = self._uefi_variables.read_bytes()
        except OSError as error:
            raise _no_firmware(service, self._uefi_variables, error.strerror or str(error)) from error
        temporary = variables.with_name(f".{variables.name}")
        # What is left there may be a second name of data that were moved away since.
        temporary.unlink(missing_ok=True)
        temporary.write_bytes(fresh)
        _publish(temporary, variables)

    def mark(self, service: str, facts: Mapping[str, object]) -> None:
        """Write the `ran` mark, durably; to be called before the first instruction, every time."""
        if _is_there(self._mark(service)):
            # A daemon that was killed between the mark and this may have left it where a power cut takes it.
            sync_directory(self._directory / service)
        else:
            write_json(self._mark(service), {"first_run": time.time(), **facts})

    def _mark(self, service: str) -> Path:
        return self._directory / service / _MARK

    async def _create(self, disk: DiskImage) -> None:
        temporary = disk.overlay.with_name(f".{disk.overlay.name}")
        temporary.unlink(missing_ok=True)
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._qemu_img, "create", "-q", "-f", "qcow2"),
                *("-b", str(disk.golden), "-F", disk.golden_format, str(temporary)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise MachineError(
                f"cannot make a crisis overlay on disk {disk.name}: {self._qemu_img}: {error.strerror}",
                "install the package qemu-utils",
            ) from error
        try:
            async with asyncio.timeout(_CREATE_DEADLINE):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise MachineError(
                f"cannot make a crisis overlay on disk {disk.name}: no end after {_CREATE_DEADLINE:.0f} s",
                "the data disk or the one of the vault may hang; `dmesg` says more",
            ) from error
        finally:
            await _end(process)
        if process.returncode != 0:
            cause = said.decode(errors="replace").strip().removeprefix("qemu-img: ")
            raise MachineError(
                f"cannot make a crisis overlay on disk {disk.name}: {cause}",
                "check the free space on the data disk and that the image in the vault is whole",
            )
        write_json(_base_record(disk), _identity(disk.golden))
        _publish(temporary, disk.overlay)


def _publish(temporary: Path, final: Path) -> None:
    """Give what is whole its name, durably. FileExistsError if something has come to be there meanwhile."""
    fd = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    # A link, since a rename would replace.
    final.hardlink_to(temporary)
    temporary.unlink()
    sync_directory(final.parent)


def _no_firmware(service: str, path: Path, cause: str) -> MachineError:
    return MachineError(f"cannot start {service}: its UEFI firmware {path}: {cause}", "install the package ovmf")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Gone with its pipe when this returns, except where a disk that hangs keeps it in the kernel."""
    if process.returncode is None:
        process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAP_GRACE):
                await process.communicate()


def _is_there(path: Path) -> bool:
    """Whatever it is, a link that leads nowhere included. A disk that does not say raises OSError: never "no"."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _check_base(service: str, disk: DiskImage) -> None:
    made_on = read_json(_base_record(disk))
    if made_on and made_on != _identity(disk.golden):
        raise MachineError(
            f"cannot start {service}: its crisis data belong to another image of disk {disk.name} than the vault's",
            f"put that image back into the vault; if its crisis data are not needed, move {disk.overlay.parent} away",
        )


def _base_record(disk: DiskImage) -> Path:
    return disk.overlay.with_suffix(".base.json")


def _identity(golden: Path) -> dict[str, object]:
    """Tells an image from the next one of the same name without reading it; a copy keeps it with `cp -p`."""
    facts = golden.stat()
    return {"size": facts.st_size, "modified": facts.st_mtime_ns}
