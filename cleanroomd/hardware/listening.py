"""Listening to cables: a packet socket on each port, which never sends.

A packet socket (packet(7)) gets each frame before the guards of the port see it, so that a port which lets nothing
through can be listened to all the same. Promiscuous mode makes the card pass on what is not for us, router
advertisements above all. Storms are bounded three times: a filter in the kernel keeps the bulk of an open port's
traffic away, few frames are read at a time, and what the kernel had to drop is known: a port that could not be
listened to was not found quiet.
"""

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cleanroomd.clock import now
from cleanroomd.hardware.hearing import LONGEST, Expected, Voice, sign_of
from cleanroomd.model.listening import Heard
from cleanroomd.model.observed import Interface

_ETH_P_ALL = 3
_SOL_PACKET, _ADD_MEMBERSHIP, _STATISTICS, _AUXDATA, _IGNORE_OUTGOING = 263, 1, 6, 8, 23
"""linux/if_packet.h"""
_PROMISCUOUS = 1
_MEMBERSHIP = struct.Struct("=iHH8s")
_AUX = struct.Struct("=IIIHHHH")
_TAG_VALID, _TPID_VALID = 0x10, 0x40
_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER, asm-generic/socket.h"""
_AT_ONCE = 64
"""Frames that are read before the loop gets its turn again."""
_PAUSE = 0.02
"""Seconds without reading after so many: 3,200 frames a second at most, which no quiet network comes near."""
_MOST_NOTES = 8
_STRANGER_AGAIN = 1.0
"""Seconds within which a stranger that is still heard is no news."""


@dataclass(slots=True)
class _Ear:
    """The socket of one interface, and what came in by it."""

    name: str
    index: int
    socket: socket.socket
    expected: Expected
    carrier_changes: int | None = None
    """Those of the cable that is listened to; None while none is plugged in."""
    heard: Heard = field(default_factory=lambda: Heard(0, 0.0))


class PortListening:
    """What is heard on ports, in the running loop. `on_change(text)` tells of what was not known before."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._ears: dict[str, _Ear] = {}
        self._macs: frozenset[str] = frozenset()
        self._deaf: dict[str, Heard] = {}
        """Interfaces that cannot be listened to."""

    def attend(self, wanted: Mapping[str, Expected], interfaces: tuple[Interface, ...], macs: frozenset[str]) -> None:
        """Listen to exactly these interfaces from now on; whoever was heard on a cable is forgotten with it.

        `macs` are the enclosure's own.
        """
        self._macs = macs
        there = {interface.name: interface for interface in interfaces if interface.name in wanted}
        for name, old in list(self._ears.items()):
            if name not in there or there[name].index != old.index:
                self._end(old)
        self._deaf = {}
        for name, interface in there.items():
            ear = self._ears.get(name) or self._begin(interface, wanted[name])
            if ear is not None:
                ear.expected = wanted[name]
                _follow_cable(ear, interface)

    def heard(self) -> Mapping[str, Heard]:
        """By interface, those only that have a cable."""
        ears = {name: ear.heard for name, ear in self._ears.items() if ear.carrier_changes is not None}
        return {**ears, **self._deaf}

    def close(self) -> None:
        for ear in list(self._ears.values()):
            self._end(ear)

    def _begin(self, interface: Interface, expected: Expected) -> _Ear | None:
        try:
            listener = _listener(interface)
        except OSError as error:
            problem = f"cannot listen to {interface.name}: {error.strerror or error}"
            self._deaf[interface.name] = Heard(interface.carrier_changes, now(), problem=problem)
            return None
        ear = _Ear(interface.name, interface.index, listener, expected)
        self._ears[interface.name] = ear
        self._resume(ear)
        return ear

    def _end(self, ear: _Ear) -> None:
        if self._ears.get(ear.name) is ear:
            del self._ears[ear.name]
        asyncio.get_running_loop().remove_reader(ear.socket.fileno())
        ear.socket.close()

    def _resume(self, ear: _Ear) -> None:
        if self._ears.get(ear.name) is ear:
            asyncio.get_running_loop().add_reader(ear.socket.fileno(), self._read, ear)

    def _read(self, ear: _Ear) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame, ancillary, _, _ = ear.socket.recvmsg(LONGEST, socket.CMSG_SPACE(_AUX.size))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    # Whatever it is: the next look at the links begins anew, or says why it cannot.
                    self._end(ear)
                    self._on_change(f"{ear.name} cannot be listened to: {error.strerror}")
                return
            self._judge(ear, _with_tag(frame, ancillary))
        loop = asyncio.get_running_loop()
        loop.remove_reader(ear.socket.fileno())
        loop.call_later(_PAUSE, self._resume, ear)
        _, dropped = struct.unpack("=II", ear.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        if dropped:
            self._stranger(ear, "more than can be listened to: a loop between switches, or a flood")

    def _judge(self, ear: _Ear, frame: bytes) -> None:
        sign = sign_of(frame, ear.expected, self._macs)
        if sign is None:
            return
        if sign.voice is Voice.STRANGER:
            self._stranger(ear, sign.text)
        elif sign.voice is Voice.ROUTER and not ear.heard.router:
            ear.heard = replace(ear.heard, router=sign.text)
            self._on_change(f"{ear.name} heard {sign.text}")
        elif sign.voice is Voice.NOTE and sign.text not in ear.heard.notes and len(ear.heard.notes) < _MOST_NOTES:
            ear.heard = replace(ear.heard, notes=(*ear.heard.notes, sign.text))
            self._on_change(f"{ear.name} heard {sign.text}")

    def _stranger(self, ear: _Ear, text: str) -> None:
        last = ear.heard.stranger_at
        ear.heard = replace(ear.heard, stranger=text, stranger_at=now())
        if last is None or now() - last > _STRANGER_AGAIN:
            self._on_change(f"{ear.name} heard {text}")


def _follow_cable(ear: _Ear, interface: Interface) -> None:
    """Begin anew with each cable. What was heard since the last one was pulled belongs to the one that is found now."""
    if not (interface.up and interface.carrier):
        ear.carrier_changes = None
        ear.heard = Heard(interface.carrier_changes, now())
    elif ear.carrier_changes != interface.carrier_changes:
        since_last = ear.heard if ear.carrier_changes is None else Heard(0, 0.0)
        ear.carrier_changes = interface.carrier_changes
        ear.heard = replace(since_last, carrier_changes=interface.carrier_changes, since=now())


def _listener(interface: Interface) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        # Protocol 0 receives nothing: the socket hears its interface alone, from the moment that it is bound.
        _attach_filter(listener)
        listener.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        with suppress(OSError):
            # Since kernel 4.20; what we send bears our own MAC, so that it is no news without either.
            listener.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        membership = _MEMBERSHIP.pack(interface.index, _PROMISCUOUS, 0, bytes(8))
        listener.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)
        listener.bind((interface.name, _ETH_P_ALL))
    except BaseException:
        listener.close()
        raise
    return listener


def _attach_filter(listener: socket.socket) -> None:
    """Drop in the kernel what an open port carries most of, TCP over IPv4 for one station; keep LONGEST of the rest.

    Classic BPF (linux/filter.h), on the frame without its tag: a group address is kept, then all but IPv4, then all
    but TCP.
    """
    load_byte, load_half, jump_set, jump_equal, give = 0x30, 0x28, 0x45, 0x15, 0x06
    program = (
        (load_byte, 0, 0, 0),
        (jump_set, 4, 0, 1),
        (load_half, 0, 0, 12),
        (jump_equal, 0, 2, 0x0800),
        (load_byte, 0, 0, 23),
        (jump_equal, 1, 0, 6),
        (give, 0, 0, LONGEST),
        (give, 0, 0, 0),
    )
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def _with_tag(frame: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The frame with the VLAN tag that the kernel has taken out of it."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _AUXDATA) and len(data) >= _AUX.size:
            status, _, _, _, _, tag, tpid = _AUX.unpack_from(data)
            if status & _TAG_VALID:
                return frame[:12] + struct.pack(">HH", tpid if status & _TPID_VALID else 0x8100, tag) + frame[12:]
    return frame
