"""What a restarted daemon finds of a machine beside it: the file machine.json of its run directory."""

import logging
from dataclasses import asdict
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cleanroomd.clock import now
from cleanroomd.durable import read_json, write_json
from cleanroomd.machine import process
from cleanroomd.model.observed import MachineFacts, MachinePhase, Made
from cleanroomd.model.plan import StartKind
from cleanroomd.model.posture import TapGuard

FILE = "machine.json"
_HAS_AGENT = "guest_agent"

_log = logging.getLogger(__name__)


def write(directory: Path, facts: MachineFacts, *, has_agent: bool) -> None:
    """On a full disk the machine goes on without: the next daemon then proves it ready anew."""
    document = {key: value for key, value in asdict(facts).items() if key not in _TRANSIENT}
    document["made"] = facts.made and _encode(facts.made)
    document[_HAS_AGENT] = has_agent
    try:
        write_json(directory / FILE, document)
    except OSError as error:
        _log.warning("cannot record the machine of %s: %s", facts.service, error.strerror)


_TRANSIENT = frozenset({"death", "held", "made", "severed"})


def is_recorded(directory: Path, pid: int, **values: object) -> bool:
    """Whether there is a record of the machine `pid`, with these values in it."""
    document = _record_of(directory, pid)
    return all(document.get(key) == value for key, value in {"pid": pid, **values}.items())


def _record_of(directory: Path, pid: int) -> dict[str, object]:
    """The record of the machine `pid`; empty if it is another machine's, another boot's, or damaged."""
    document = read_json(directory / FILE)
    instants = [document.get(key) for key in ("launched_at", "running_at", "ready_at")]
    known = [instant for instant in instants if instant is not None]
    plausible = all(isinstance(instant, int | float) and 0 <= instant <= now() for instant in known)
    return document if plausible and document.get("pid") == pid else {}


def read(directory: Path, pid: int) -> MachineFacts:
    """What the run directory says of the machine `pid`."""
    document = _record_of(directory, pid)

    def instant(key: str) -> float | None:
        value = document.get(key)
        return float(value) if isinstance(value, int | float) else None

    def count(key: str) -> int:
        value = document.get(key)
        return value if isinstance(value, int) and value > 0 else 0

    running_at = instant("running_at")
    return MachineFacts(
        service=directory.name,
        pid=pid,
        phase=MachinePhase.PAUSED if running_at is None else MachinePhase.RUNNING,
        start=StartKind.WARM if document.get("start") == StartKind.WARM else StartKind.COLD,
        attempt=count("attempt") or 1,
        memory=count("memory") or process.guest_memory(pid),
        launched_at=instant("launched_at") or now(),
        adopted_at=now(),
        running_at=running_at,
        ready_at=instant("ready_at"),
        proof=str(document.get("proof", "")),
        made=_decode(directory.name, document.get("made")),
    )


def _encode(made: Made) -> dict[str, object]:
    guards = [
        {
            "interface": guard.interface,
            "mac": guard.mac,
            "address": str(guard.address),
            "gateway": str(guard.gateway) if guard.gateway else None,
        }
        for guard in made.guards
    ]
    return {**asdict(made), "guards": guards}


def _decode(service: str, document: Any) -> Made | None:
    """What `_encode` wrote; None for anything else: the plan is believed then."""
    try:
        return Made(
            definition=str(document["definition"]),
            guards=tuple(
                TapGuard(
                    service=service,
                    interface=str(guard["interface"]),
                    mac=str(guard["mac"]),
                    address=IPv4Address(guard["address"]),
                    gateway=IPv4Address(guard["gateway"]) if guard["gateway"] else None,
                )
                for guard in document["guards"]
            ),
            depends_on=tuple(str(name) for name in document["depends_on"]),
            shutdown_timeout=float(document["shutdown_timeout"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def has_agent(directory: Path, pid: int) -> bool:
    """Whether the machine `pid` was recorded to have a guest agent."""
    return is_recorded(directory, pid, **{_HAS_AGENT: True})
