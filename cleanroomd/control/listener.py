"""The socket in the file system."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cleanroomd.errors import ControlError

LONGEST_PATH = 107
"""Bytes of a socket's path: sun_path in unix(7) has 108 with the closing NUL."""

BACKLOG = 64


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, removed at the end; ControlError if it cannot be had.

    Its mode is 0666: who may do what is decided for each call by the peer's credentials, and those who may
    do nothing are to read why. A directory made for it is 0755. What a dead daemon left is replaced; a
    socket on which somebody answers is not.
    """
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        raise ControlError(
            f"cannot listen on {path}: the path has {length} bytes, at most {LONGEST_PATH} are possible",
            "choose a directory with a shorter path",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with listener:
        try:
            if not path.parent.exists():
                path.parent.mkdir(parents=True)
                path.parent.chmod(0o755)
            _clear(path)
            listener.bind(os.fspath(path))
            # Nobody can connect before listen(), so no moment has another mode.
            path.chmod(0o666)
            listener.listen(BACKLOG)
            mine = path.stat()
        except OSError as error:
            raise ControlError(f"cannot listen on {path}: {error.strerror}") from error
        try:
            yield listener
        finally:
            _remove(path, mine)


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ControlError(f"cannot listen on {path}: it is there and is no socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            # Its backlog is full: somebody listens.
            pass
    raise ControlError(
        f"cannot listen on {path}: another daemon answers there",
        "stop that one first, or choose another path",
    )


def _remove(path: Path, mine: os.stat_result) -> None:
    """Leaves the socket of a successor alone."""
    try:
        if os.path.samestat(path.lstat(), mine):
            path.unlink()
    except FileNotFoundError:
        return
