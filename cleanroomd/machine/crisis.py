"""Crisis data: overlays with what care writes during a crisis, which exists nowhere else.

Nothing in this module, nor anywhere else, deletes an overlay. The durable `ran` mark precedes the first
instruction that could write to one; a service whose mark is there never gets a fresh overlay in its place.
The same holds for what a machine's UEFI firmware remembers, such as which system of its disks it boots.
"""

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cleanroomd.durable import make_directories, read_json, sync_directory, write_json
from cleanroomd.errors import MachineError
from cleanroomd.machine.arguments import UEFI_CODE, DiskImage
from cleanroomd.machine.causes import in_words, way_out
from cleanroomd.model.observed import OverlayFacts

UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""What the firmware `UEFI_CODE` remembers when it has never run."""

_MARK = "ran"
_OPENED = "opened"
_ASIDE = ".aside-"
"""Between a service and a number: no service's name has a dot in it."""
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

    def facts(self, services: Iterable[str]) -> dict[str, OverlayFacts]:
        """Service -> its overlays. What cannot be learned is "opened": the answer that keeps everything as it is."""
        aside: Counter[str] = Counter()
        with suppress(OSError):
            aside.update(entry.name.partition(_ASIDE)[0] for entry in self._directory.iterdir() if _ASIDE in entry.name)
        return {service: self._facts(service, aside[service]) for service in services}

    def _facts(self, service: str, aside: int) -> OverlayFacts:
        try:
            names = [entry.name for entry in (self._directory / service).iterdir()]
        except FileNotFoundError:
            return OverlayFacts(aside=aside)
        except OSError:
            return OverlayFacts(exists=True, marked=True, opened=True, aside=aside)
        overlays = any(name.endswith(".qcow2") and not name.startswith(".") for name in names)
        return OverlayFacts(exists=overlays, marked=_MARK in names, opened=_OPENED in names, aside=aside)

    async def prepare(self, service: str, disks: tuple[DiskImage, ...], *, variables: Path | None = None) -> None:
        """Make the overlays, and `variables` for UEFI, that do not exist yet; what does is left exactly as it is.

        Raises MachineError when one of them is missing although the machine has run: its data are then somewhere
        else, and a fresh overlay would hide that. And when the image below an overlay is no longer the one that
        it was made on: an overlay holds the blocks that differ, so that another image below it makes both worthless.
        """
        # In threads: a disk that is slow to write costs this service its time, and nobody else.
        with in_words(f"keep crisis data of {service}"):
            missing = await asyncio.to_thread(self._prepare_folder, service, disks, variables)
            for disk in disks:
                if disk in missing:
                    await self._create(disk)
                else:
                    await asyncio.to_thread(_check_base, service, disk)

    def _prepare_folder(self, service: str, disks: tuple[DiskImage, ...], variables: Path | None) -> list[DiskImage]:
        """All but the overlays; those that are missing."""
        folder = self._directory / service
        make_directories(folder, durable_below=self._directory.parent)
        missing = [disk for disk in disks if not _is_there(disk.overlay)]
        if missing and _is_there(self._mark(service)):
            raise MachineError(
                f"cannot start {service}: its crisis data for disk {missing[0].name} are gone",
                f"put {missing[0].overlay} back; nothing was started, so that nothing is written beside it",
            )
        for disk in missing:
            self._look_elsewhere(service, disk)
        if variables is not None:
            self._prepare_variables(service, variables)
        return missing

    def _look_elsewhere(self, service: str, disk: DiskImage) -> None:
        """A service that was renamed in the plan must not begin anew beside what care wrote under its old name."""
        for folder in sorted(self._directory.iterdir()):
            elsewhere = folder / disk.overlay.name
            if (
                folder.name != service
                and _ASIDE not in folder.name
                and _is_there(elsewhere)
                and _is_there(folder / _MARK)
            ):
                raise MachineError(
                    f"cannot start {service}: care wrote to disk {disk.name} as service {folder.name} before",
                    f"if {service} is its new name, stop {folder.name} and rename {folder} to"
                    f" {folder.with_name(service)}; if those data are not needed, move {folder} away",
                )

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
        with in_words(f"run {service}"):
            if _is_there(self._mark(service)):
                # A daemon that was killed between the mark and this may have left it where a power cut takes it.
                sync_directory(self._directory / service)
            else:
                write_json(self._mark(service), {"first_run": time.time(), **facts})

    def mark_opened(self, service: str) -> None:
        """Write down, durably, that flows to the service open: from now on its overlays hold what care writes."""
        mark = self._directory / service / _OPENED
        if _is_there(mark):
            sync_directory(mark.parent)
        else:
            write_json(mark, {"opened": time.time()})

    def set_aside(self, service: str) -> Path | None:
        """Give the overlays of `service` a name of their own, durably, and return it; None when there are none.

        To be called while its machine does not run. Raises MachineError where a flow was open to the service.
        """
        folder = self._directory / service
        if not _is_there(folder):
            return None
        if _is_there(folder / _OPENED):
            raise MachineError(
                f"cannot keep the crisis data of {service} aside: care may have written to them",
                "they stay where they are, and the service starts cold on them",
            )
        taken = [entry.name for entry in self._directory.iterdir() if entry.name.startswith(f"{service}{_ASIDE}")]
        number = max((int(name.rpartition("-")[2]) for name in taken if name.rpartition("-")[2].isdecimal()), default=0)
        aside = self._directory / f"{service}{_ASIDE}{number + 1}"
        folder.rename(aside)
        sync_directory(self._directory)
        return aside

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
                "install the package qemu-utils" if error.errno == errno.ENOENT else way_out(error),
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
            # On a full disk its room is what the other services need.
            temporary.unlink(missing_ok=True)
            cause = said.decode(errors="replace").strip().removeprefix("qemu-img: ")
            raise MachineError(
                f"cannot make a crisis overlay on disk {disk.name}: {cause}",
                "check the free space on the data disk and that the image in the vault is whole",
            )
        await asyncio.to_thread(_finish, disk, temporary)


def _finish(disk: DiskImage, temporary: Path) -> None:
    """What it was made on first: an overlay never has its name without that."""
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
