"""What exists before a machine's QEMU does, and what it inherits: its lock, its sockets, its process descriptor."""

import asyncio
import fcntl
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

from cleanroomd.clock import now
from cleanroomd.errors import MachineError
from cleanroomd.machine import process

_LOCK_GRACE = 30.0
_LOCK_AGAIN = 0.05
_LONGEST_SOCKET_PATH = 107  # sun_path less its terminator, unix(7)


async def take_lock(handles: ExitStack, directory: Path, service: str) -> int:
    """A lock that QEMU inherits, so that it is held for exactly as long as a QEMU of this machine exists.

    One that was killed holds it a little longer than it can be found: until the kernel has taken back its memory.
    """
    fd = closing(handles, os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    deadline = now() + _LOCK_GRACE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if process.find_process(directory) is not None or now() >= deadline:
                raise MachineError(
                    f"cannot start {service}: another QEMU of it is still running",
                    "it is adopted or ended by itself; try again in a moment",
                ) from error
        else:
            return fd
        await asyncio.sleep(_LOCK_AGAIN)


def watchable(pid: int) -> int:
    """A pidfd of the child `pid`; one that cannot be watched is ended, before it has run an instruction."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def closing(handles: ExitStack, fd: int) -> int:
    handles.callback(os.close, fd)
    return fd


def listening(handles: ExitStack, path: Path) -> int:
    """A listening unix socket, bound before QEMU exists, so that nobody has to wait for it to appear."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise MachineError(
            f"cannot make the socket {path}: its path is longer than {_LONGEST_SOCKET_PATH} bytes",
            "use a root directory with a shorter path",
        )
    path.unlink(missing_ok=True)
    listener = handles.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1)
    return listener.fileno()
