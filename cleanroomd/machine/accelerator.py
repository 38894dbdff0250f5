"""The one accelerator that all machines of this power-on use, found out by running a guest.

/dev/kvm proves nothing by existing or opening: there are kernels, in clouds and containers, that offer it
and then interpret ring 0 in software, a few hundred times slower than QEMU's own emulation. So the probe asks
cheap questions first and ends with the real one:

1. Does the CPU have the extension, and has the firmware left it on (`vmx` or `svm` in /proc/cpuinfo)?
2. Can this process open /dev/kvm?
3. The control: does the guest of `longmode.S` answer under emulation? If not, the probe is what is broken.
4. Does it answer under KVM, in a time that emulation has shown to be fair?

There is no separate program that drives /dev/kvm by ioctl: the guest does in QEMU what such a program would
check (long mode, ring 0, paging), and shows besides that firmware, devices and this QEMU work with this
kernel, on the machine type and CPU model that the machines have. The guest works through a loop before it
answers, since interpreted instructions are correct ones and only their pace gives them away.

The runs are remembered for as long as the kernel and the QEMU binary stay the same; the questions 1 and 2
are asked each time, so that a module that was loaded or a permission that was given counts at once.
"""

import asyncio
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from cleanroomd.durable import read_json, write_json
from cleanroomd.errors import MachineError
from cleanroomd.machine.arguments import CPU_MODEL, MACHINE_TYPE
from cleanroomd.machine.causes import way_out
from cleanroomd.model.units import format_duration

GUEST = bytes.fromhex(
    "02b0ad1b00000100fe4f51e40000100000001000c6001000c600100020001000fcbf000011000f22df31c0b9"
    "000c0000f3abb803101100a300001100a300081100c7050010110003201100c70500201100830000000f20e0"
    "83c8200f22e0b9800000c00f320d000100000f300f20c00d010000800f22c00f0115c0001000ea8500100008"
    "0048b8910010000080ffffffe0b900000002ffc975fc488d05f0ffffff48c1e83034d5e6f4f4ebfd0f1f4000"
    "000000000000000000000000009a20000f00b0001000"
)
"""What `longmode.S` assembles to."""

_ANSWERED = 0x2A << 1 | 1
"""QEMU's exit status when the guest writes 0x2a: isa-debug-exit shifts it left and sets bit 0."""

_PATIENCE = 4
"""KVM is slower than emulation only by accident: so many times its duration is fair on a busy machine."""

_VERSION_DEADLINE = 30.0
_REAP_GRACE = 10.0
_OUTPUT_LIMIT = 4096
_DETAIL_LIMIT = 200

# The kernel ends the guest with the daemon, however that ends (prctl(2), PR_SET_PDEATHSIG).
_ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")

_HINT = "install the package qemu-system-x86"

_log = logging.getLogger(__name__)


class AcceleratorKind(StrEnum):
    """Values of QEMU's -accel. Exactly one is ever passed: its fallback from a KVM that hangs hangs too."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Accelerator:
    kind: AcceleratorKind
    reason: str
    """Why this one, in words."""
    qemu_version: str


class Ending(StrEnum):
    ANSWERED = "answered"
    SILENT = "silent"
    """No answer before the deadline; killed."""
    FAILED = "failed"
    """QEMU ended by itself without the answer."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the guest. `seconds` is the deadline where it was silent; `detail` says how it failed."""

    ending: Ending
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What holds for as long as the kernel and the QEMU binary stay the same; None for a run not made."""

    qemu_version: str
    control: Run | None = None
    kvm: Run | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    cpu_flag: bool
    kvm_problem: str
    """Why /dev/kvm cannot be opened; empty when it can."""
    measured: Measured


@dataclass(frozen=True, slots=True)
class Host:
    """Where the probe looks, and how many seconds it waits."""

    cpuinfo: Path = Path("/proc/cpuinfo")
    kvm: Path = Path("/dev/kvm")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    control_deadline: float = 60.0
    """Two hundred times what the control takes on a small machine: at power-on much else happens."""
    kvm_deadline: float = 5.0
    """The least that KVM gets; more where the control was slow."""


HOST = Host()


def decide(facts: Facts) -> Accelerator:
    """KVM only when every question was answered in its favour; otherwise emulation, with the first reason."""
    doubt = _doubt(facts)
    kvm, version = facts.measured.kvm, facts.measured.qemu_version
    if doubt or kvm is None:
        return Accelerator(AcceleratorKind.TCG, doubt or "KVM has not been tried", version)
    return Accelerator(AcceleratorKind.KVM, f"a 64-bit guest ran under KVM in {kvm.seconds:.1f} s", version)


def _doubt(facts: Facts) -> str:
    """What speaks against KVM, as far as it was tried; empty when nothing does."""
    control, kvm = facts.measured.control, facts.measured.kvm
    if not facts.cpu_flag:
        return "the CPU offers no virtualisation (no vmx or svm flag): it has none, or the firmware has it off"
    if facts.kvm_problem:
        return f"cannot open /dev/kvm: {facts.kvm_problem}"
    if control is None:
        return "KVM has not been tried"
    if control.ending is not Ending.ANSWERED:
        return (
            "the probe itself is broken and KVM remains untried: under emulation, "
            f"where it must work, its guest {_manner(control)}"
        )
    if kvm is not None and kvm.ending is not Ending.ANSWERED:
        return (
            f"/dev/kvm opens but does not serve: a 64-bit guest {_manner(kvm)} "
            f"(under emulation it answered in {control.seconds:.1f} s)"
        )
    return ""


def _manner(run: Run) -> str:
    if run.ending is Ending.SILENT:
        return f"gave no answer within {format_duration(run.seconds)}"
    return f"failed: {run.detail}"


async def probe(qemu: Path, *, cache: Path, host: Host = HOST) -> Accelerator:
    """Which accelerator to use with `qemu`, a path or a name on PATH.

    The first call of a boot takes two short runs of QEMU, each within its deadline; later ones read the file
    `cache`. A cache that cannot be read or written costs time, no more. MachineError if there is no working
    QEMU. Leaves no process, also when cancelled, and no file but `cache`.
    """
    try:
        binary = _locate(qemu)
        identity = _identity(binary, host)
        known = _recall(cache, identity)
        measured = known or Measured(await qemu_version(binary))
        cpu_flag, kvm_problem = _has_cpu_flag(host.cpuinfo), _open_problem(host.kvm)
        if cpu_flag and not kvm_problem and measured.control is None:
            measured = await _measure(binary, measured.qemu_version, host)
    except OSError as error:
        raise MachineError(
            f"cannot choose an accelerator: {error}",
            "check that /proc is mounted and that the package util-linux is installed",
        ) from error
    if measured != known:
        _remember(cache, identity, measured)
    return decide(Facts(cpu_flag, kvm_problem, measured))


async def qemu_version(qemu: Path) -> str:
    """The version with the packager's own in brackets, as printed: "7.2.22 (Debian 1:7.2+dfsg-7)".

    `qemu` is a path or a name on PATH. MachineError if there is none or it does not say.
    """
    binary = _locate(qemu)
    try:
        finished = await _run((str(binary), "--version"), deadline=_VERSION_DEADLINE)
    except OSError as error:
        hint = _HINT if error.errno == errno.ENOENT else way_out(error)
        raise MachineError(f"cannot run QEMU ({binary}): {error.strerror}", hint) from error
    match = re.match(r"QEMU emulator version (\d[^\n]{0,100})", finished.untrusted_output)
    if finished.code != 0 or match is None:
        raise MachineError(
            f"cannot tell the version of QEMU ({binary}): {_last_words(finished)}",
            "install the package qemu-system-x86 again",
        )
    return match[1].strip()


def _locate(qemu: Path) -> Path:
    found = shutil.which(qemu)
    if found is None:
        raise MachineError(f"cannot find QEMU: {qemu} is missing or not executable", _HINT)
    return Path(found)


def _has_cpu_flag(cpuinfo: Path) -> bool:
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return not {"vmx", "svm"}.isdisjoint(value.split())
    return False


def _open_problem(device: Path) -> str:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


async def _measure(binary: Path, version: str, host: Host) -> Measured:
    control = await _run_guest(binary, AcceleratorKind.TCG, deadline=host.control_deadline)
    if control.ending is not Ending.ANSWERED:
        return Measured(version, control)
    deadline = max(host.kvm_deadline, _PATIENCE * control.seconds)
    return Measured(version, control, await _run_guest(binary, AcceleratorKind.KVM, deadline=deadline))


async def _run_guest(binary: Path, accelerator: AcceleratorKind, *, deadline: float) -> Run:
    with _memory_file("longmode", GUEST) as guest:
        finished = await _run(
            (str(binary), *_guest_arguments(accelerator, guest)),
            deadline=deadline,
            pass_fds=(guest,),
        )
    if finished.code is None:
        return Run(Ending.SILENT, deadline)
    if finished.code == _ANSWERED:
        return Run(Ending.ANSWERED, finished.seconds)
    return Run(Ending.FAILED, finished.seconds, _last_words(finished))


def _guest_arguments(accelerator: AcceleratorKind, guest: int) -> tuple[str, ...]:
    return (
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", MACHINE_TYPE, "-accel", accelerator, "-cpu", CPU_MODEL, "-m", "32M"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        *("-kernel", f"/proc/self/fd/{guest}"),
    )


@dataclass(frozen=True, slots=True)
class _Finished:
    code: int | None
    """Exit status, negative for a signal; None when the deadline came first."""
    untrusted_output: str
    """The beginning of what it wrote to both outputs."""
    seconds: float


async def _run(argv: tuple[str, ...], *, deadline: float, pass_fds: tuple[int, ...] = ()) -> _Finished:
    """Run `argv` to its end or its deadline; its process is gone when this returns or raises."""
    with _memory_file("output") as output:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *_ENDS_WITH_PARENT,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        code = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline):
                    code = await process.wait()
        finally:
            await _end(process)
        seconds = time.monotonic() - began
        return _Finished(code, os.pread(output, _OUTPUT_LIMIT, 0).decode(errors="replace"), seconds)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill and reap. A process that is stuck in the kernel is left to the loop: the power-on goes on."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.kill()
    try:
        async with asyncio.timeout(_REAP_GRACE):
            await process.wait()
    except TimeoutError:
        _log.warning("process %d was killed but the kernel does not let go of it", process.pid)


@contextmanager
def _memory_file(name: str, data: bytes = b"") -> Iterator[int]:
    """A file that has no name in any directory, so that nothing is left of it whatever happens."""
    fd = os.memfd_create(name)
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def _last_words(finished: _Finished) -> str:
    """Why it ended: its first line that is no warning, else its status."""
    for line in finished.untrusted_output.splitlines():
        if line.strip() and "warning:" not in line:
            return "".join(c if c.isprintable() else " " for c in line).strip()[:_DETAIL_LIMIT]
    if finished.code is None:
        return f"no answer within {format_duration(finished.seconds)}"
    if finished.code < 0:
        return f"killed by signal {-finished.code}"
    return "the guest crashed" if finished.code == 0 else f"exit status {finished.code}"


def _identity(binary: Path, host: Host) -> str:
    """Changes with the boot and with the QEMU binary, hence with QEMU's version, without asking for it."""
    stat = binary.stat()
    boot = host.boot_id.read_text().strip()
    return f"{boot} {stat.st_dev}:{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"


def _recall(cache: Path, identity: str) -> Measured | None:
    """What was measured for `identity`; None when nothing was, or when the file is not as it was written."""
    document = read_json(cache)
    version = document.get("qemu_version")
    if document.get("identity") != identity or not isinstance(version, str):
        return None
    try:
        control, kvm = _recalled_run(document["control"]), _recalled_run(document["kvm"])
    except (KeyError, TypeError, ValueError):
        return None
    if (kvm is not None) != (control is not None and control.ending is Ending.ANSWERED):
        return None
    return Measured(version, control, kvm)


def _recalled_run(value: object) -> Run | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError("a run is an object")
    ending, seconds, detail = Ending(value["ending"]), value["seconds"], value["detail"]
    if not isinstance(seconds, float) or not isinstance(detail, str):
        raise TypeError("a run has seconds and a detail")
    return Run(ending, seconds, detail)


def _remember(cache: Path, identity: str, measured: Measured) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"identity": identity, **asdict(measured)})
    except OSError as error:
        _log.warning("cannot remember the accelerator in %s: %s", cache, error.strerror)
