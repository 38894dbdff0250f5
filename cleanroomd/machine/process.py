"""QEMU processes as the kernel knows them: recognised by their arguments, watched by pidfd.

A pid alone is no identity, since pids are reused; the path of the pid file on the command line is one.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

from cleanroomd.machine.arguments import pid_file


def find_process(directory: Path) -> int | None:
    """The pid of the QEMU that runs in `directory`, None if there is none."""
    wanted = os.fsencode(pid_file(directory))
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _has_argument(entry, wanted):
            return int(entry.name)
    return None


def _has_argument(entry: Path, wanted: bytes) -> bool:
    with suppress(OSError):
        arguments = (entry / "cmdline").read_bytes().split(b"\0")
        if wanted in arguments and b"-pidfile" in arguments:
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            return state not in ("Z", "X")
    return False


def open_process(pid: int, directory: Path) -> int | None:
    """A pidfd of `pid`, None if it is no longer the QEMU of `directory`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Checked after the pidfd exists: from here on it cannot come to mean another process.
    if _has_argument(Path(f"/proc/{pid}"), os.fsencode(pid_file(directory))):
        return pidfd
    os.close(pidfd)
    return None


def kill(pidfd: int) -> None:
    """SIGKILL the process, if it still exists."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def resident_memory(pid: int) -> int:
    """Bytes of memory that `pid` holds at this moment; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def guest_memory(pid: int) -> int:
    """Bytes of memory that the guest of the QEMU `pid` was given, as its arguments say; 0 when it is gone."""
    with suppress(OSError, ValueError, IndexError):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return int(arguments[arguments.index(b"-m") + 1].removesuffix(b"M")) << 20
    return 0
