"""What an OSError means for a machine, in words with a way out."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from cleanroomd.errors import MachineError

_NO_DESCRIPTORS = "raise LimitNOFILE= of cleanroomd.service and restart it; the machines that run stay up meanwhile"
_NO_ROOM = "make room on the data disk; it is tried again by itself, and what was written is still there"
_BAD_DISK = "the data disk fails or may not be written to; `dmesg` says more"
_NO_MEMORY = "stop a service that can be spared: the enclosure has no memory left, or no processes"

WAYS_OUT: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOENT: "put back what is missing",
        errno.EACCES: "check the owner and the mode of its directories",
        errno.EMFILE: _NO_DESCRIPTORS,
        errno.ENFILE: _NO_DESCRIPTORS,
        errno.ENOSPC: _NO_ROOM,
        errno.EDQUOT: _NO_ROOM,
        errno.EIO: _BAD_DISK,
        errno.EROFS: _BAD_DISK,
        errno.ENOMEM: _NO_MEMORY,
        errno.EAGAIN: _NO_MEMORY,
    }
)


def way_out(error: OSError) -> str:
    """What somebody can do about `error`; empty where only the log knows."""
    return WAYS_OUT.get(error.errno or 0, "")


@contextmanager
def in_words(deed: str) -> Iterator[None]:
    """An OSError inside becomes the MachineError "cannot `deed`: its cause"."""
    try:
        yield
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        raise MachineError(f"cannot {deed}: {cause}", way_out(error)) from error
