"""The daemon's end of the probes: one sandboxed child for each watched service.

Whatever a machine does to its child (crash it, hang it, take it over and make it flood) costs that service
its answers and nothing else: lines are bounded and taken at a bounded rate, silence has a deadline, a lost
child is replaced after a back-off, and meanwhile the service is not ready.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cleanroomd
from cleanroomd.model.observed import ProbeFacts
from cleanroomd.model.plan import GuestAgentProbe, Probe, protocol_probes
from cleanroomd.probes import handover
from cleanroomd.probes.answer import printable
from cleanroomd.probes.spec import LINE_LIMIT, Pace, Round, Spec, decode_round, encode_spec

OnAnswer = Callable[[str, ProbeFacts], None]

DEFAULT_PACE = Pace()

_REAP_TIMEOUT = 5.0
"""Seconds for a child that was killed, or closed its standard output, to be gone with its pipes."""


@dataclass(frozen=True, slots=True)
class Endurance:
    """What the runner bears from a child; all in seconds."""

    start: float = 30.0
    """For the interpreter and the protocol's libraries to load on a machine that is busy booting others."""
    silence: float = 3.0
    """Multiples of a round's budget without a line after which a child is taken for dead."""
    gap: float = 0.05
    """Least time between two lines that are taken, and between two connections that are handed over; a child that
    says or asks more is held up."""
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    steady: float = 60.0
    """A child that lived this long has earned a fresh start: its loss begins the back-off anew."""


DEFAULT_ENDURANCE = Endurance()


class _LostError(Exception):
    """A child that has to be replaced; the message says why, printable."""


@dataclass(frozen=True, slots=True)
class _Watch:
    spec: Spec
    agent: Path | None
    task: asyncio.Task[None]


def child_command() -> list[str]:
    """How a child is started: this interpreter, without the working directory or a user's packages."""
    return [sys.executable, "-P", "-s", "-W", "ignore", "-m", "cleanroomd.probes.child"]


def child_environment() -> dict[str, str]:
    """All that a child inherits: where this package is, and a fixed locale."""
    return {"PYTHONPATH": str(Path(cleanroomd.__file__).parents[1]), "LC_ALL": "C.UTF-8"}


class ProbeRunner:
    """Watches services; must be used, and closed, in one running event loop.

    The children end with the thread of the loop, however that ends.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        pace: Pace = DEFAULT_PACE,
        endurance: Endurance = DEFAULT_ENDURANCE,
    ) -> None:
        self._command = tuple(command or child_command())
        self._pace = pace
        self._endurance = endurance
        self._watches: dict[str, _Watch] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def watch(
        self,
        service: str,
        probes: Sequence[Probe],
        address: str,
        on_answer: OnAnswer,
        *,
        agent: Path | None = None,
    ) -> None:
        """Attempt `probes` at `address` again and again; each outcome goes to `on_answer`, in the loop.

        `on_answer` must not raise: it would end the watch. `agent` is the socket of the machine's guest agent, for
        probes that ask that.

        Watching a service again changes nothing while its probes and addresses are the same, else replaces it.
        """
        spec = Spec(address=address, probes=tuple(probes), pace=self._pace)
        watch = self._watches.get(service)
        if watch is not None and (watch.spec, watch.agent) == (spec, agent):
            return
        self.unwatch(service)
        task = asyncio.create_task(self._keep(service, spec, agent, on_answer), name=f"probes of {service}")
        self._watches[service] = _Watch(spec, agent, task)

    def unwatch(self, service: str) -> None:
        """Stop; `on_answer` is not called again for it. Unknown services are fine."""
        watch = self._watches.pop(service, None)
        if watch is None:
            return
        watch.task.cancel()
        self._ending.add(watch.task)
        watch.task.add_done_callback(self._ending.discard)

    def watched(self) -> frozenset[str]:
        """The services whose probes run, those included whose child is being replaced."""
        return frozenset(self._watches)

    async def close(self) -> None:
        """Stop all, and wait until every child is gone."""
        for service in self.watched():
            self.unwatch(service)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _keep(self, service: str, spec: Spec, agent: Path | None, on_answer: OnAnswer) -> None:
        """One child after another until cancelled."""
        losses = 0
        while True:
            began = _boottime()
            try:
                async with self._agents(spec, agent) as inherited:
                    await self._run_child(service, spec, inherited, on_answer)
            except (_LostError, OSError) as error:
                on_answer(service, _facts(ok=False, detail=f"probe crashed: {printable(str(error))}"))
            losses = 1 if _boottime() - began >= self._endurance.steady else losses + 1
            backoff = self._endurance.first_backoff * 2 ** min(losses - 1, 16)
            await asyncio.sleep(min(backoff, self._endurance.longest_backoff))

    @contextlib.asynccontextmanager
    async def _agents(self, spec: Spec, agent: Path | None) -> AsyncIterator[tuple[int, ...]]:
        """What a child inherits to ask the guest agent: nothing where no probe does."""
        asking = (isinstance(part, GuestAgentProbe) for probe in spec.probes for part in protocol_probes(probe))
        if agent is None or not any(asking):
            yield ()
            return
        ours, theirs = handover.pair()
        with ours, theirs:
            handing = asyncio.create_task(self._hand_over(ours, agent))
            try:
                yield (theirs.fileno(),)
            finally:
                handing.cancel()
                await asyncio.wait((handing,))

    async def _hand_over(self, ours: socket.socket, agent: Path) -> None:
        """Connections as the child asks for them. A machine that took it over gets them too: they lead to itself."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(ours, 1):
                # One that gets no answer waits for it until its attempt is over, and asks again in the next.
                with contextlib.suppress(OSError):
                    handover.hand_over(ours, agent)
                await asyncio.sleep(self._endurance.gap)

    async def _run_child(self, service: str, spec: Spec, inherited: tuple[int, ...], on_answer: OnAnswer) -> None:
        """One child from start to end, which is always a _LostError or a cancellation."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *map(str, inherited),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=child_environment(),
            cwd="/",
            start_new_session=True,
            pass_fds=inherited,
            limit=LINE_LIMIT,
        )
        try:
            await self._converse(process, service, spec, on_answer)
        finally:
            await _end(process)

    async def _converse(self, process: Process, service: str, spec: Spec, on_answer: OnAnswer) -> None:
        if process.stdin is None:
            raise _LostError("it has no standard input")
        with contextlib.suppress(ConnectionError):
            process.stdin.write(encode_spec(spec))
            async with asyncio.timeout(self._endurance.start):
                await process.stdin.drain()
        silence = self._endurance.silence * spec.budget
        patience = self._endurance.start + silence
        while True:
            outcome = await _next_round(process, len(spec.probes), patience)
            on_answer(service, _facts(ok=outcome.ok, detail=outcome.detail))
            patience = silence
            await asyncio.sleep(self._endurance.gap)


async def _next_round(process: Process, probes: int, patience: float) -> Round:
    """What the child says next; _LostError if that is nothing, too late, too long or nonsense."""
    if process.stdout is None:
        raise _LostError("it has no standard output")
    try:
        async with asyncio.timeout(patience):
            untrusted_line = await process.stdout.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        raise _LostError(await _last_words(process)) from None
    except asyncio.LimitOverrunError:
        raise _LostError(f"it said more than {LINE_LIMIT} bytes in one line") from None
    except TimeoutError:
        raise _LostError(f"it said nothing for {patience:.0f} s") from None
    try:
        return decode_round(untrusted_line, probes)
    except ValueError:
        raise _LostError("what it said is not an answer") from None


async def _last_words(process: Process) -> str:
    """Why a child that closed its standard output ended: the last line of its errors, or its exit status."""
    try:
        async with asyncio.timeout(_REAP_TIMEOUT):
            untrusted = await _read_to_end(process.stderr, LINE_LIMIT)
            status = await process.wait()
    except TimeoutError:
        return "it stopped talking"
    lines = [line for line in map(printable, untrusted.splitlines()) if line]
    if lines:
        return lines[-1]
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


async def _read_to_end(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """At most the first `limit` bytes of `stream`; what comes after them is read and forgotten."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(LINE_LIMIT)):
        kept += chunk[: limit - len(kept)]
    return bytes(kept)


async def _end(process: Process) -> None:
    """Kill a child and reap it, its pipes included; asyncio closes only pipes that were read to their end.

    One that may not be killed, since this process lacks CAP_KILL, ends as its standard input closes.
    """
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_TIMEOUT):
            await _read_to_end(process.stdout, 0)
            await _read_to_end(process.stderr, 0)
            await process.wait()


def _facts(*, ok: bool, detail: str) -> ProbeFacts:
    return ProbeFacts(ok=ok, detail=detail, at=_boottime())


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
