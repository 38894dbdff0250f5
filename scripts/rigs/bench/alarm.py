"""How long it takes from a foreign change of the rules to the alarm, with the change undone.

The daemon's own guard in this process's network namespace, which must be one of its own, on rules that it owns.
"""

import asyncio
import socket
import struct

from cleanroomd.clock import now
from cleanroomd.engine.guarding import Guard
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.tables import NETLINK_NETFILTER, own_tables
from cleanroomd.model.posture import Posture

_COALESCE = 0.01
"""As in the engine's loop, which this stands for."""
_LONGEST = 5.0
_APART = 0.15
"""Seconds between changes: what comes faster is a storm, and is judged at a slower pace."""


def time_to_alarm(posture: Posture, *, times: int = 50) -> list[float]:
    """Add a foreign table `times` times; the seconds from just before each to the alarm that it was removed."""
    return asyncio.run(_measure(posture, times))


async def _measure(posture: Posture, times: int) -> list[float]:
    awake = asyncio.Event()
    told: asyncio.Queue[float] = asyncio.Queue()
    guard = Guard(lambda _text, /, **_fields: told.put_nowait(now()))
    with RuleWriter(own_tables()) as writer, guard.listening(lambda _reason: awake.set()):
        writer.apply(compile_posture(posture))
        guard.owned_by(writer.port)
        guard.who_changed(writer.generation())
        taken = []
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as foreign:
            foreign.bind((0, 0))
            for number in range(times):
                begun = now()
                _add_table(foreign, f"foreign{number}")
                async with asyncio.timeout(_LONGEST):
                    while told.empty():
                        await awake.wait()
                        await asyncio.sleep(_COALESCE)
                        awake.clear()
                        culprits = guard.who_changed(writer.generation())
                        writer.prove(posture)
                        removed, left = guard.remove_tables(writer)
                        guard.say(culprits, removed, left, "")
                taken.append(told.get_nowait() - begun)
                await asyncio.sleep(_APART)
    return taken


def _add_table(foreign: socket.socket, name: str) -> None:
    """A batch of one NEWTABLE in netlink bytes (netfilter/nf_tables.h), as any process with the right can send it."""
    header, body = struct.Struct("=IHHII"), struct.Struct(">BBH")
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text + bytes(-len(text) % 4)
    parts = (
        (0x10, 0x1, body.pack(0, 0, 10)),
        (0xA00, 0x401, body.pack(1, 0, 0) + attribute),
        (0x11, 0x1, body.pack(0, 0, 10)),
    )
    batch = b"".join(header.pack(16 + len(data), kind, flags, 1, 0) + data for kind, flags, data in parts)
    foreign.send(batch)
