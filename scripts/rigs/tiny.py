"""Tiny machines: a bootable disk of one HTTP server, made in seconds, for demonstrations and tests that need machines.

Like the hospital's machines they boot Debian's kernel from their own disk, so that the enclosure treats them no
differently; their whole user space is busybox.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cleanroomd.errors import CleanroomError
from rigs.hospital import disks, shell
from rigs.hospital.boot import BootFiles, closure, read_dependencies
from rigs.hospital.errors import HospitalError
from rigs.hospital.machines import Disk

RECIPE = Path(__file__).parent / "guests/tiny"
BOOT_RECIPE = Path(__file__).parent / "hospital/guests/boot"
APPLETS = (
    *("acpid", "cat", "echo", "findfs", "insmod", "ip", "mount", "nc", "poweroff", "printf", "sh", "sleep", "sync"),
    *("tr", "umount"),
)
TOOLS = ("apt-get", "apt-cache", "dpkg-deb", "depmod", "busybox", "cpio", "mkfs.fat", "mcopy", "syslinux", "mke2fs")
PACKAGES = "busybox-static cpio dosfstools e2fsprogs kmod mtools qemu-utils syslinux syslinux-common"
DISK_MIB = 64
MEMORY = "128M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel of Debian's, and which of its modules a machine loads."""

    package: str
    """The meta-package that depends on it."""
    modules: tuple[str, ...]

    @property
    def flavour(self) -> str:
        return self.package.removeprefix("linux-image-")


VIRTUAL = Kernel(
    package="linux-image-cloud-amd64", modules=("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev")
)
"""For machines on VirtIO alone; small, and quick under emulation."""

WITH_SERIAL_PORTS = Kernel(package=VIRTUAL.package, modules=(*VIRTUAL.modules, "virtio_console"))
"""For machines with a guest agent."""

PHYSICAL = Kernel(
    package="linux-image-amd64",
    modules=(
        *VIRTUAL.modules,
        *("crc32c_generic", "ext4", "sd_mod", "virtio_scsi", "ahci", "ata_piix", "e1000", "e1000e", "8139cp"),
    ),
)
"""With drivers for whatever controllers and network cards an old machine may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One tiny machine: what its disk is called, and the address that it has always had."""

    name: str
    address: str
    gateway: str
    prefix: int = 24
    kernel: Kernel = VIRTUAL
    agent: bool = False
    """Whether it has this machine's qemu-ga, and no ear for the power button."""

    @property
    def disk(self) -> str:
        return f"{self.name}-system"

    def identity(self) -> str:
        """Shell assignments that the machine's init reads."""
        for value in (self.name, self.address, self.gateway):
            if re.fullmatch(r"[A-Za-z0-9.-]+", value) is None:
                raise ValueError(f"{value!r} does not belong in a shell assignment")
        return f"NAME={self.name}\nADDRESS={self.address}/{self.prefix}\nGATEWAY={self.gateway}\nLABEL=tiny-data\n" + (
            "AGENT=yes\n" if self.agent else ""
        )


def build(guests: Sequence[Guest], cache: Path, report: Callable[[str], None]) -> Mapping[str, Path]:
    """Disk name -> qcow2 of each guest, from the cache or built now; `report` gets what is being done.

    Raises CleanroomError when a tool or package is missing. Finished disks are read-only and never written again.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool, path=shell.search_path()) is None]
    if missing:
        raise CleanroomError(
            f"cannot build the tiny machines: {', '.join(missing)} not installed", f"apt-get install {PACKAGES}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            trees = {kernel: _kernel(kernel, cache, report) for kernel in {guest.kernel for guest in guests}}
            return MappingProxyType({guest.disk: _disk(guest, cache, trees[guest.kernel], report) for guest in guests})
        except HospitalError as error:
            raise CleanroomError(error.message.replace("the hospital", "the tiny machines"), error.hint) from error


def disk_digest(guest: Guest, kernel_version: str) -> str:
    """Changes with anything that the guest's disk is made from."""
    digest = hashlib.sha256()
    sources = (Path(__file__), Path(disks.__file__), *sorted(RECIPE.iterdir()), *sorted(BOOT_RECIPE.iterdir()))
    for text in (guest.identity(), kernel_version, *(path.read_text(encoding="utf-8") for path in sources)):
        digest.update(f"{len(text)}\0{text}".encode())
    if guest.agent:
        digest.update(_agent_program().read_bytes())
    return digest.hexdigest()[:16]


def parse_kernel(kernel: Kernel, depends: str) -> str:
    """The package behind the meta-package, from `apt-cache depends`; raises CleanroomError when there is none."""
    pattern = rf"Depends: (linux-image-\S*[0-9]-{kernel.flavour}(?:-unsigned)?)$"
    found = re.search(pattern, depends, re.MULTILINE)
    if found is None:
        raise CleanroomError(f"cannot build the tiny machines: apt knows no {kernel.package}", "apt-get update")
    return found[1]


@contextmanager
def _logged(cache: Path) -> Iterator[None]:
    """What the tools say goes to a file; rigs.hospital.shell writes it to standard error."""
    with (cache / "tiny-build.log").open("w", encoding="utf-8") as log, redirect_stderr(log):
        yield


def _kernel(kernel: Kernel, cache: Path, report: Callable[[str], None]) -> Path:
    """The kernel's package, unpacked and not installed, as an ordinary user may."""
    package = parse_kernel(kernel, shell.output(["apt-cache", "depends", kernel.package]))
    target = cache / f"tiny-{package}"
    if target.exists():
        return target
    report(f"fetch {package}")
    for obsolete in cache.glob(f"tiny-linux-image-*[0-9]-{kernel.flavour}*"):
        shutil.rmtree(obsolete)
    with tempfile.TemporaryDirectory(prefix="tiny-", dir=cache) as name:
        work = Path(name)
        options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        fetched = subprocess.run(
            ["apt-get", "download", "--quiet", *options, package],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode != 0:
            cause = fetched.stderr.strip().splitlines()[-1:] or ["apt-get failed"]
            raise CleanroomError(f"cannot build the tiny machines: {cause[0]}", "apt-get update")
        (archive,) = work.glob("*.deb")
        tree = work / "tree"
        with _logged(cache):
            shell.run(["dpkg-deb", "--extract", archive, tree])
            if not (tree / "lib").exists():
                # Debian 13 ships the modules in /usr/lib only, and depmod looks in /lib.
                (tree / "lib").symlink_to("usr/lib")
            version = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
            shell.run(["depmod", "--basedir", tree, version])
        tree.rename(target)
    return target


def _disk(guest: Guest, cache: Path, kernel: Path, report: Callable[[str], None]) -> Path:
    """Built beside its final name and renamed, so that what is in the cache is whole."""
    target = cache / f"tiny-{guest.name}-{disk_digest(guest, kernel.name)}.qcow2"
    if target.exists():
        return target
    report(f"make the disk of {guest.name}")
    for obsolete in cache.glob(f"tiny-{guest.name}-{'?' * 16}.qcow2"):
        obsolete.unlink()
    with tempfile.TemporaryDirectory(prefix="tiny-", dir=cache) as name:
        work = Path(name)
        empty = work / "empty"
        empty.mkdir()
        image = work / "disk.qcow2"
        with _logged(cache):
            boot = BootFiles(
                kernel=next((kernel / "boot").glob("vmlinuz-*")), modules=work, initrd=_initrd(guest, kernel, work)
            )
            disk = Disk(name=guest.disk, source="", mib=DISK_MIB, label="tiny-data", bootable=True)
            disks.write_disk(disk=disk, tree=empty, boot=boot, recipe=BOOT_RECIPE, image=image)
        image.chmod(0o444)
        image.rename(target)
    return target


def _initrd(guest: Guest, kernel: Path, work: Path) -> Path:
    """Uncompressed: emulated processors unpack slower than emulated disks read."""
    root = work / "root"
    for folder in ("bin", "data", "dev", "etc/acpi/PWRF", "modules", "proc", "sys"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(shutil.which("busybox", path=shell.search_path()) or "busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for source, place in (("init", "init"), ("serve", "bin/serve"), ("power-button", "etc/acpi/PWRF/00000080")):
        shutil.copyfile(RECIPE / source, root / place)
        (root / place).chmod(0o755)
    (root / "etc/identity").write_text(guest.identity(), encoding="ascii")
    if guest.agent:
        _add_agent(root)

    (available,) = (kernel / "lib/modules").iterdir()
    dependencies = read_dependencies(available)
    names = [
        _unpack_module(available / module, root / "modules") for module in closure(dependencies, guest.kernel.modules)
    ]
    (root / "modules/order").write_text("".join(f"{name}\n" for name in names), encoding="ascii")

    initrd = work / "initrd"
    files = shell.output(["find", root, "-mindepth", "1", "-printf", "%P\\n"])
    shell.run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", "-D", root, f"--file={initrd}"], text=files
    )
    return initrd


def _agent_program() -> Path:
    program = shutil.which("qemu-ga", path=shell.search_path())
    if program is None:
        raise CleanroomError("cannot build the tiny machines: no qemu-ga installed", "apt-get install qemu-guest-agent")
    return Path(program)


def _add_agent(root: Path) -> None:
    """qemu-ga with the libraries that it needs, and what it calls to shut down: it runs /sbin/shutdown."""
    program = _agent_program()
    libraries = re.findall(r"(/\S+) \(0x", shell.output(["ldd", program]))
    for path in (program, *map(Path, libraries)):
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
    (root / "sbin").mkdir(exist_ok=True)
    shutil.copyfile(RECIPE / "power-button", root / "sbin/shutdown")
    (root / "sbin/shutdown").chmod(0o755)


def _unpack_module(source: Path, folder: Path) -> str:
    """Copy one module, unpacked where the kernel package ships it compressed (Debian 13 does); its file name there."""
    if source.suffix != ".xz":
        shutil.copyfile(source, folder / source.name)
        return source.name
    import lzma

    (folder / source.stem).write_bytes(lzma.decompress(source.read_bytes()))
    return source.stem


def main() -> int:
    """Build one guest's disk and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m rigs.tiny", description="Build a tiny machine's disk.")
    parser.add_argument("name")
    parser.add_argument("--address", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    guest = Guest(name=options.name, address=options.address, gateway=options.gateway)
    try:
        built = build([guest], options.cache, lambda text: print(text, file=sys.stderr))
    except CleanroomError as error:
        print(f"{error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    print(built[guest.disk])
    return 0


if __name__ == "__main__":
    sys.exit(main())
