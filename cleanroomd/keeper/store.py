"""The owning socket in the service manager's hands: while keeper and daemon are both dead, the rules stay owned.

systemd's file descriptor store, sd_notify(3) FDSTORE=1 and sd_listen_fds(3), in bytes of our own.
"""

import os
import socket

NAME = "owning"
_FIRST = 3
"""SD_LISTEN_FDS_START"""


def notify(lines: str, *, held: socket.socket | None = None) -> None:
    """One datagram to the service manager, with a copy of `held`; nothing where there is no manager."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    abstract = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(abstract)
        if held is None:
            manager.send(lines.encode())
        else:
            socket.send_fds(manager, [lines.encode()], [held.fileno()])


def store(owning: socket.socket) -> None:
    """Have the manager hold a copy. It may refuse (FileDescriptorStoreMax=0), and does not say."""
    notify(f"FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0", held=owning)


def stored() -> socket.socket | None:
    """What an earlier keeper stored, if the manager handed it to this process; whatever else it handed is closed."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = None
    for descriptor, name in enumerate(names[: int(os.environ.get("LISTEN_FDS", "0"))], start=_FIRST):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 (takes no keyword)
        if name == NAME and found is None:
            found = _socket(descriptor)
        else:
            os.close(descriptor)
    return found


def _socket(descriptor: int) -> socket.socket | None:
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
