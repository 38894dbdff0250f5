"""The process that talks to one machine: `python -m cleanroomd.probes.child`.

Reads its spec as one line on standard input, confines itself, then says one line for each round of attempts.
Ends when standard input closes. Its one argument is the descriptor through which `handover` hands it connections to the
guest agent, where a probe asks that.
"""

import importlib
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from cleanroomd.model.plan import GuestAgentProbe, Probe, ProtocolProbe, Quorum, endpoints, protocol_probes
from cleanroomd.model.plan import Protocol as Transport
from cleanroomd.probes import quorum, sandbox
from cleanroomd.probes.answer import Answer, printable
from cleanroomd.probes.spec import SPEC_LIMIT, Round, Spec, decode_spec, encode_round, protocol

_STDIN, _STDOUT = 0, 1


class Attempt(Protocol):
    """`attempt` of a protocol's module."""

    def __call__(self, probe: ProtocolProbe, address: str, *, timeout: float, connect_timeout: float) -> Answer: ...


Attempts = Mapping[type[ProtocolProbe], Attempt]


def load(probes: Iterable[Probe], agents: socket.socket | None = None) -> Attempts:
    """What attempts each kind of probe; imports the libraries of these protocols and of no other.

    `agents` is the child's end of `handover`; ValueError when there is none and a probe asks the guest agent.
    """
    attempts: dict[type[ProtocolProbe], Attempt] = {}
    for probe in probes:
        for part in protocol_probes(probe):
            module = importlib.import_module(f"cleanroomd.probes.{protocol(part)}")
            attempts[type(part)] = module.attempt
            if isinstance(part, GuestAgentProbe):
                if agents is None:
                    raise ValueError("no way to the guest agent was handed over")
                attempts[GuestAgentProbe] = partial(module.attempt, agents=agents)
            if getattr(part, "tls", False):
                importlib.import_module("cleanroomd.probes.tls").tls_context()
    return attempts


def attempt_round(attempts: Attempts, spec: Spec, *, connect_timeout: float) -> Round:
    """One attempt of every probe; a fault of ours or of a library is an answer too, and the others go on."""

    def answer(probe: Probe) -> Answer:
        if isinstance(probe, Quorum):
            return quorum.judge(probe, map(answer, probe.of))
        try:
            return attempts[type(probe)](
                probe, spec.address, timeout=spec.pace.timeout, connect_timeout=connect_timeout
            )
        except Exception as error:  # noqa: BLE001 the loop's boundary: the answer carries the cause
            return Answer(ok=False, detail=printable(f"probe failed: {type(error).__name__}: {error}"))

    return Round(tuple(map(answer, spec.probes)))


def repeat(
    attempts: Callable[[float], Round],
    spec: Spec,
    *,
    say: Callable[[bytes], None],
    pause: Callable[[float], bool],
) -> None:
    """Rounds until `pause` (seconds) says that nobody listens any more.

    Rounds begin at regular instants, not after a pause: a round that took its time is followed at once.
    """
    ready = False
    while True:
        began = time.monotonic()
        outcome = attempts(spec.pace.steady_connect_timeout if ready else spec.pace.connect_timeout)
        ready = outcome.ok
        say(encode_round(outcome))
        interval = spec.pace.steady_interval if ready else spec.pace.interval
        if not pause(max(0.0, began + interval - time.monotonic())):
            return


def _read_spec() -> Spec | None:
    """The spec, or None when standard input closed without one."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(_STDIN, 64 * 1024)
        if not chunk:
            return None
        line += chunk
        if len(line) > SPEC_LIMIT:
            raise ValueError("cannot read the spec: it is too long")
    return decode_spec(bytes(line))


def _say(line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(_STDOUT, view) :]


def main(arguments: Sequence[str]) -> int:
    """0 when standard input or output closed, 1 when this process cannot be confined or told what to do."""
    parent = os.getppid()
    try:
        spec = _read_spec()
        if spec is None:
            return 0
        agents = socket.socket(fileno=int(arguments[0])) if arguments else None
        loaded = load(spec.probes, agents)
        allowed = {endpoint for probe in spec.probes for endpoint in endpoints(probe)}
        # Landlock knows TCP only: UDP is held by the enclosure's own rules.
        sandbox.confine((port for transport, port in allowed if transport is Transport.TCP), parent=parent)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        sys.stderr.write(f"cannot start probing: {error}\n")
        return 1
    listener = select.poll()
    listener.register(_STDIN, select.POLLIN)
    try:
        repeat(
            lambda connect_timeout: attempt_round(loaded, spec, connect_timeout=connect_timeout),
            spec,
            say=_say,
            pause=lambda seconds: not listener.poll(seconds * 1000),
        )
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
