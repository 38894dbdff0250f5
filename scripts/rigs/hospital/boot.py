"""What a machine needs to reach its own init: one kernel, the few modules it uses, a small initial system.

Debian's generic initial system takes most of a minute under software emulation; this one takes a second.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HospitalError
from .machines import GUEST_MODULES, INITRD_MODULES
from .shell import output, run

KERNEL_OPTIONS = (
    "console=ttyS0,115200",
    "loglevel=4",
    "systemd.show_status=auto",
    "ipv6.disable=1",
    "mitigations=off",
    "tsc=reliable",
    "audit=0",
    "edd=off",
    "panic=0",
)
"""The machines are meant for software emulation: `mitigations=off` drops page-table switches that cost most there,
`tsc=reliable` keeps the kernel from a slower clock when a busy host makes it doubt the fast one."""


@dataclass(frozen=True)
class BootFiles:
    """The kernel, its modules for the machines' trees, and the initial system, shared by every machine."""

    kernel: Path
    modules: Path
    initrd: Path


def prepare(*, kernel_archive: Path, initrd_archive: Path, recipe: Path, work: Path) -> BootFiles:
    """Unpack Debian's kernel and busybox into what the machines boot from."""
    unpacked = work / "kernel"
    run(["dpkg-deb", "--extract", kernel_archive, unpacked])
    busybox = work / "busybox"
    run(["dpkg-deb", "--extract", initrd_archive, busybox])
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    available = unpacked / "lib/modules" / version
    run(["depmod", "--basedir", unpacked, version])
    dependencies = read_dependencies(available)

    modules = work / "modules" / version
    for path in (*closure(dependencies, GUEST_MODULES + INITRD_MODULES),):
        target = modules / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(available / path, target)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy2(available / name, modules / name)

    initrd = work / "initrd"
    pack_initrd(
        root=work / "initrd.d",
        init=recipe / "init",
        busybox=next(busybox.glob("**/bin/busybox")),
        modules=[available / path for path in closure(dependencies, INITRD_MODULES)],
        target=initrd,
    )
    return BootFiles(kernel=kernel, modules=modules, initrd=initrd)


@dataclass(frozen=True)
class Dependencies:
    """What a kernel's modules need: module name to the paths to load, in that order, its own last."""

    paths: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]
    """Modules that this kernel has without loading them; Debian moves some from one release to the next."""


def read_dependencies(folder: Path) -> Dependencies:
    """The modules.dep and modules.builtin of /lib/modules/VERSION."""
    paths = {}
    for line in (folder / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, _, needs = line.partition(":")
        paths[module_name(path)] = (*reversed(needs.split()), path)
    builtin = (folder / "modules.builtin").read_text(encoding="utf-8").splitlines()
    return Dependencies(paths=paths, builtin=frozenset(map(module_name, builtin)))


def module_name(path: str) -> str:
    """As insmod(8) and /proc/modules spell it."""
    return Path(path).name.split(".")[0].replace("-", "_")


def closure(dependencies: Dependencies, names: Iterable[str]) -> list[str]:
    """The paths of the named modules and of all they need, in an order in which each can be loaded."""
    ordered: dict[str, None] = {}
    for name in names:
        if name in dependencies.builtin:
            continue
        if name not in dependencies.paths:
            raise HospitalError(f"cannot build the hospital: the kernel has no module {name}")
        ordered.update(dict.fromkeys(dependencies.paths[name]))
    return list(ordered)


def pack_initrd(*, root: Path, init: Path, busybox: Path, modules: Sequence[Path], target: Path) -> None:
    """Uncompressed on purpose: emulated processors unpack slower than emulated disks read."""
    for folder in ("bin", "dev", "proc", "root", "modules"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin/busybox")
    for applet in ("sh", "mount", "insmod", "findfs", "cat", "sleep", "echo", "poweroff", "switch_root"):
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy2(init, root / "init")
    (root / "init").chmod(0o755)
    for module in modules:
        shutil.copy2(module, root / "modules" / module.name)
    names = [module.name for module in modules]
    (root / "modules/order").write_text("".join(f"{name}\n" for name in names), encoding="ascii")
    files = output(["find", root, "-mindepth", "1", "-printf", "%P\\n"])
    run(["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", "-D", root, f"--file={target}"], text=files)
