"""Network namespaces for tests: real links and real packets, nothing of the host touched, nothing left behind."""

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_TUNSETIFF = 0x400454CA
_TAP = 0x0002 | 0x1000 | 0x4000
"""IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, as QEMU opens it."""
_ETH_P_ALL = 3


class Namespace:
    """A network namespace that lives as long as this object; sockets keep belonging to it after `entered`."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_LIBC.unshare(_CLONE_NEWNET))
            self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.run("ip", "link", "set", "lo", "up")
        finally:
            _call(_LIBC.setns(before, _CLONE_NEWNET))
            os.close(before)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and what it starts, is inside."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _call(_LIBC.setns(self._descriptor, _CLONE_NEWNET))
        try:
            yield
        finally:
            _call(_LIBC.setns(before, _CLONE_NEWNET))
            os.close(before)

    def run(self, *command: str) -> str:
        """Output of a command of the current namespace; its failure is the test's."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def ip(self, arguments: str) -> None:
        with self.entered():
            self.run("ip", *arguments.split())

    def open_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.entered():
            found = socket.socket(family, kind)
        found.settimeout(5)
        return found

    def listener(self, address: str, port: int) -> socket.socket:
        server = self.open_socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        return server

    def receiver(self, address: str, port: int) -> socket.socket:
        """A bound UDP socket."""
        found = self.open_socket(kind=socket.SOCK_DGRAM)
        found.bind((address, port))
        return found

    def frames(self, interface: str) -> socket.socket:
        """A raw socket that sends and sees every frame of one interface."""
        with self.entered():
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            found.bind((interface, 0))
        found.settimeout(5)
        return found

    def close(self) -> None:
        os.close(self._descriptor)


def move(link: str, source: Namespace, target: Namespace) -> None:
    """Move a link to another namespace."""
    with source.entered():
        source.run("ip", "link", "set", link, "netns", f"/proc/{os.getpid()}/fd/{target._descriptor}")


class Cable:
    """A guest's network card: frames go both ways between a host's tap descriptor and eth0 of a namespace."""

    def __init__(self, host: int, guest: Namespace, mac: str) -> None:
        with guest.entered():
            self._guest = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self._guest, _TUNSETIFF, struct.pack("=16sH22x", b"eth0", _TAP))
        guest.ip(f"link set eth0 address {mac} up")
        self.host = host
        self._stop, self._alarm = os.pipe()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        ends = {self.host: self._guest, self._guest: self.host}
        while True:
            ready, _, _ = select.select([*ends, self._stop], [], [])
            if self._stop in ready:
                return
            for end in ready:
                try:
                    os.write(ends[end], os.read(end, 1 << 17))
                except OSError:
                    # A link that is down takes no frame: it is lost, as on a real cable.
                    continue

    def close(self) -> None:
        os.close(self._alarm)
        self._thread.join()
        for descriptor in (self._stop, self.host, self._guest):
            os.close(descriptor)


def privileged() -> str:
    """Why namespaces and taps cannot be made here, "" if they can."""
    try:
        Namespace().close()
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return str(error)
    return ""


def _call(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
