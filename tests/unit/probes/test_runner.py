"""The daemon's end, with real children and with children that misbehave as a taken-over one could."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cleanroomd.model.observed import ProbeFacts
from cleanroomd.model.plan import HttpProbe, TcpProbe
from cleanroomd.probes.runner import Endurance, ProbeRunner
from cleanroomd.probes.spec import Pace

from .conftest import LOOPBACK, Handler, Peer

PACE = Pace(interval=0.05, steady_interval=0.05, timeout=1)
QUICK = Endurance(start=0.5, silence=0.1, first_backoff=0.05, longest_backoff=0.1, gap=0.001)
PROBES = (TcpProbe(port=9, expect=b"x"),)
GOOD_LINE = json.dumps({"ok": True, "detail": "fine", "answers": [{"ok": True, "detail": "fine"}]})


class Board:
    """Where answers arrive; waits for one that fits."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, ProbeFacts]] = []
        self._news = asyncio.Event()

    def __call__(self, service: str, facts: ProbeFacts) -> None:
        self.answers.append((service, facts))
        self._news.set()

    async def until(self, fits: Callable[[str, ProbeFacts], bool]) -> ProbeFacts:
        seen = 0
        while True:
            for service, facts in self.answers[seen:]:
                if fits(service, facts):
                    return facts
            seen = len(self.answers)
            self._news.clear()
            await self._news.wait()


def children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in text.split()}


@asynccontextmanager
async def runner(program: str | None = None, endurance: Endurance = QUICK) -> AsyncIterator[ProbeRunner]:
    """A runner whose children run `program`, or are the real ones; none is left afterwards."""
    before = children()
    command = None if program is None else [sys.executable, "-S", "-c", program]
    probing = ProbeRunner(command=command, pace=PACE, endurance=Endurance() if program is None else endurance)
    try:
        yield probing
    finally:
        await probing.close()
    assert probing.watched() == frozenset()
    assert children() <= before


@pytest.fixture
def web(peer: Peer, reply: Callable[[bytes], Handler]) -> HttpProbe:
    return HttpProbe(port=peer(reply(b"HTTP/1.1 200 OK\r\n\r\n")), path="/system")


async def test_a_service_becomes_ready_when_its_machine_answers() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        probe = TcpProbe(port=listener.getsockname()[1], expect=b"hello")
        board = Board()
        async with runner() as probing:
            before = time.clock_gettime(time.CLOCK_BOOTTIME)
            probing.watch("interface", [probe], LOOPBACK, board)
            assert probing.watched() == {"interface"}
            waiting = await board.until(lambda service, facts: service == "interface")
            assert not waiting.ok
            assert "connection refused" in waiting.detail

            async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"hello")
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_server(answer, sock=listener)
            async with server:
                ready = await board.until(lambda service, facts: facts.ok)
            assert ready.detail == f"TCP {probe.port} answered as expected"
            assert before < waiting.at < ready.at <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_after_unwatch_nothing_is_heard_of_a_service(web: HttpProbe) -> None:
    board, other = Board(), Board()
    async with runner() as probing:
        probing.watch("record", [web], LOOPBACK, board)
        probing.watch("imaging", [web], LOOPBACK, other)
        await board.until(lambda service, facts: facts.ok)
        probing.unwatch("record")
        probing.unwatch("never watched")
        assert probing.watched() == {"imaging"}
        heard, others = len(board.answers), len(other.answers)
        await other.until(lambda service, facts: len(other.answers) > others + 3)
        assert len(board.answers) == heard


async def test_watching_again_keeps_the_child_unless_something_changed(web: HttpProbe) -> None:
    board = Board()
    before = children()
    async with runner() as probing:
        probing.watch("record", [web], LOOPBACK, board)
        await board.until(lambda service, facts: facts.ok)
        first = children() - before
        probing.watch("record", [web], LOOPBACK, board)
        probing.watch("record", (web,), LOOPBACK, board)
        heard = len(board.answers)
        await board.until(lambda service, facts: len(board.answers) > heard + 2)
        assert children() - before == first
        changed = HttpProbe(port=web.port, path="/other")
        probing.watch("record", [changed], LOOPBACK, board)
        await board.until(lambda service, facts: facts.detail == "HTTP 200 on /other")
        assert not (children() & first)


MISBEHAVIOUR = {
    "crashes": ("raise SystemExit('no \\x1b[1mmemory')", "no [1mmemory"),
    "is killed": ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    "exits": ("raise SystemExit(0)", "exit status 0"),
    "hangs": ("import time; time.sleep(600)", "it said nothing for"),
    "closes its output": ("import os, time; os.close(1); time.sleep(600)", "it stopped talking"),
    "says nonsense": ("print('fine'); input(); input()", "not an answer"),
    "says too much": ("print('x' * 10**6); input(); input()", "in one line"),
    "never ends its line": ("import sys\nwhile True: sys.stdout.write('x')", "in one line"),
    "answers for others": (f"print('{GOOD_LINE}'.replace(']', ', {{}}]'));input();input()", "not an answer"),
    "floods its errors": ("import sys\nwhile True: sys.stderr.write('x' * 4096)", "it said nothing for"),
    "ignores signals": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        "it said nothing for",
    ),
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
async def test_a_misbehaving_child_is_replaced_and_reported(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cleanroomd.probes.runner._REAP_TIMEOUT", 0.3)
    program, why = MISBEHAVIOUR[kind]
    board = Board()
    async with runner(program) as probing:
        probing.watch("record", PROBES, LOOPBACK, board)
        facts = await board.until(lambda service, facts: True)
        assert not facts.ok
        assert facts.detail.startswith("probe crashed: ")
        assert why in facts.detail
        assert facts.detail.isprintable()
        await board.until(lambda service, facts: len(board.answers) > 1)
        assert probing.watched() == {"record"}


async def test_a_flood_of_answers_leaves_the_loop_to_others() -> None:
    program = f"import sys\nwhile True: sys.stdout.write('{GOOD_LINE}\\n')"
    board, other = Board(), Board()
    async with runner(program, Endurance(gap=3600)) as flooded:
        flooded.watch("taken over", PROBES, LOOPBACK, board)
        await board.until(lambda service, facts: facts.ok)
        async with runner() as probing:
            probing.watch("record", PROBES, LOOPBACK, other)
            await other.until(lambda service, facts: len(other.answers) > 3)
        assert len(board.answers) == 1


async def test_a_program_that_is_missing_is_reported() -> None:
    board = Board()
    probing = ProbeRunner(command=["/nonexistent/probe"], endurance=QUICK)
    probing.watch("record", PROBES, LOOPBACK, board)
    facts = await board.until(lambda service, facts: True)
    await probing.close()
    assert not facts.ok
    assert "No such file" in facts.detail


async def test_closing_in_the_middle_of_a_start_leaves_no_child(web: HttpProbe) -> None:
    async with runner() as probing:
        for number in range(5):
            probing.watch(f"service {number}", [web], LOOPBACK, Board())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
