"""Who a process is that the kernel named: as much as /proc still knows of it."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO, include/linux/proc_ns.h."""
_LONGEST_COMMAND = 200


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was named; `command` and `uid` only if it still lived when it was looked up."""

    pid: int
    name: str
    uid: int | None = None
    command: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "an unknown process"
        user = "" if self.uid is None else f", uid {self.uid}"
        command = f", `{self.command}`" if self.command and self.command != self.name else ""
        return f"{self.name or 'a process'} (pid {self.pid}{user}{command})"


UNKNOWN = Process(0, "")


def look_up(pid: int, name: str) -> Process:
    """The process `pid` of the kernel's own numbering, which called itself `name` when it acted.

    Where /proc numbers processes otherwise, or the pid is another's by now, only pid and name are known: nobody is
    accused by mistake.
    """
    known = Process(pid, printable(name))
    entry = Path(f"/proc/{pid}")
    with suppress(OSError):
        if Path("/proc/self/ns/pid").stat().st_ino != _INITIAL_PID_NAMESPACE:
            return known
        # The kernel names the thread that acted, and /proc finds threads by their number as well.
        if (entry / "comm").read_text(errors="replace").rstrip("\n") != name:
            return known
        command = (entry / "cmdline").read_bytes()[: 4 * _LONGEST_COMMAND].replace(b"\0", b" ")
        words = printable(command.decode(errors="replace")).strip()[:_LONGEST_COMMAND]
        return Process(pid, known.name, entry.stat().st_uid, words)
    return known


def behind_port(port: int) -> Process:
    """The process that a netlink port is the first of: its pid as this PID namespace numbers it, while it lives."""
    with suppress(OSError):
        entry = Path(f"/proc/{port}")
        name = (entry / "comm").read_text(errors="replace").rstrip("\n")
        if port != os.getpid():
            return look_up(port, name)
    return Process(port, "") if 0 < port < 1 << 22 else UNKNOWN


def printable(untrusted_text: str) -> str:
    """A process chooses its name, and may put anything into it."""
    return "".join(c if c.isprintable() else "?" for c in untrusted_text)
