"""Readiness by guest agent: over connections that are handed over, against agents that lie, and in the real child."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroomd.model.plan import GuestAgentProbe, Quorum, TcpProbe, endpoints
from cleanroomd.probes import guest_agent, handover
from cleanroomd.probes.answer import QUOTE_LIMIT, Answer, UnreadyError
from cleanroomd.probes.connection import Connection, Deadline
from tests.unit.machine.agents import HONEST, LIARS, Conduct, agent, saying

from .conftest import LOOPBACK
from .test_runner import Board, runner

PROBE = GuestAgentProbe()
READY = "guest agent 7.2.22 answered"


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Not below pytest's own directory: a socket's path has at most 107 bytes."""
    with TemporaryDirectory(prefix="agent-") as name:
        yield Path(name) / "agent.sock"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def attempt(path: Path, *, timeout: float) -> Answer:
    """One attempt with a daemon's end that answers one request."""
    ours, theirs = handover.pair()
    with ours, theirs:

        def serve() -> None:
            ours.settimeout(5)
            if ours.recv(1):
                handover.hand_over(ours, path)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = guest_agent.attempt(PROBE, LOOPBACK, timeout=timeout, agents=theirs)
        theirs.close()
        thread.join()
        return answer


async def answered(path: Path, conduct: Conduct, *, seconds: float = 5) -> Answer:
    async with agent(path, conduct):
        return await asyncio.to_thread(attempt, path, timeout=seconds)


async def test_an_agent_that_answers_and_names_its_version_is_ready(socket_path: Path) -> None:
    assert await answered(socket_path, HONEST) == Answer(ok=True, detail=READY)


@pytest.mark.parametrize("kind", LIARS)
async def test_a_liar_is_never_ready(socket_path: Path, kind: str) -> None:
    answer = await answered(socket_path, LIARS[kind], seconds=0.4)
    assert not answer.ok
    assert answer.detail.startswith("waiting for guest agent (")
    assert answer.detail.isprintable()
    assert len(answer.detail) < 3 * QUOTE_LIMIT


async def test_a_refusal_is_quoted_without_its_controls(socket_path: Path) -> None:
    answer = await answered(socket_path, LIARS["refuses"])
    assert answer.detail == "waiting for guest agent (it refused: guest-info is [1mdisabled)"


def test_no_socket_is_said_so(socket_path: Path) -> None:
    assert attempt(socket_path, timeout=5).detail == "waiting for guest agent (no such file or directory)"
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(str(socket_path))
        assert attempt(socket_path, timeout=5).detail == "waiting for guest agent (connection refused)"
        unheard.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(socket_path))
            assert attempt(socket_path, timeout=5).detail == "waiting for guest agent (others are talking to it)"


def test_a_daemon_that_hands_nothing_over_is_waited_for_no_longer_than_the_attempt() -> None:
    ours, theirs = handover.pair()
    with theirs:
        answer = guest_agent.attempt(PROBE, LOOPBACK, timeout=0.05, agents=theirs)
        assert answer == Answer(ok=False, detail="waiting for guest agent (no complete answer in time)")
        ours.close()
        answer = guest_agent.attempt(PROBE, LOOPBACK, timeout=5, agents=theirs)
        assert answer == Answer(ok=False, detail="waiting for guest agent (connection reset)")


def test_connections_that_come_too_late_are_closed(socket_path: Path) -> None:
    """Else each would keep the agent from everybody."""
    ours, theirs = handover.pair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(4)
        handover.hand_over(ours, socket_path)
        ours.send(b"late words")
        before = descriptors()
        with pytest.raises(TimeoutError):
            handover.ask(theirs, Deadline(0.05))
        assert descriptors() == before
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b""


def test_an_end_that_says_nothing_is_no_connection() -> None:
    ours, theirs = handover.pair()
    with theirs:
        ours.send(b"\x1b[1m")
        ours.settimeout(None)
        thread = threading.Thread(target=lambda: ours.recv(1) and ours.send(b"\x1b"))
        thread.start()
        with pytest.raises(UnreadyError, match="no connection to it"):
            handover.ask(theirs, Deadline(5))
        thread.join()
    ours.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda data: b"\xff" + data + b"\n"),
        st.binary(max_size=300).map(lambda data: b'\xff{"return": ' + data + b"}\n"),
    )
)
def test_random_answers_are_never_ready_and_never_an_exception(data: bytes) -> None:
    machine, ours = socket.socketpair()
    with machine, Connection(ours, Deadline(5), 1000) as connection:
        machine.sendall(data)
        machine.shutdown(socket.SHUT_WR)
        with pytest.raises((guest_agent.AgentAnswerError, UnreadyError, OSError)):
            guest_agent.converse(connection)


def test_nothing_is_opened_on_the_network_for_it() -> None:
    assert endpoints(PROBE) == frozenset()
    assert len(endpoints(Quorum(1, (PROBE, TcpProbe(port=7, expect=b"x"))))) == 1


async def test_the_sandboxed_child_asks_through_what_it_is_handed(socket_path: Path) -> None:
    board = Board()
    async with runner() as probing:
        probing.watch("record", [PROBE], LOOPBACK, board, agent=socket_path)
        waiting = await board.until(lambda _, facts: True)
        assert (waiting.ok, waiting.detail) == (False, "waiting for guest agent (no such file or directory)")
        async with agent(socket_path, HONEST) as ended:
            await board.until(lambda _, facts: facts.ok)
            ready = await board.until(lambda _, facts: facts.ok and ended.qsize() > 2)
            assert ready.detail == READY
        gone = await board.until(lambda _, facts: facts.at > ready.at and not facts.ok)
        assert "guest agent" in gone.detail


async def test_it_combines_with_other_probes(socket_path: Path) -> None:
    board = Board()
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        web = TcpProbe(port=closed.getsockname()[1], expect=b"x")
        async with runner() as probing, agent(socket_path, HONEST):
            probing.watch("either", [Quorum(1, (web, PROBE))], LOOPBACK, board, agent=socket_path)
            either = await board.until(lambda service, _: service == "either")
            assert (either.ok, either.detail) == (True, READY)
            probing.watch("both", [PROBE, web], LOOPBACK, board, agent=socket_path)
            both = await board.until(lambda service, _: service == "both")
            assert not both.ok
            assert "connection refused" in both.detail


async def test_an_agent_that_never_answers_costs_the_attempt_and_not_the_child(socket_path: Path) -> None:
    board = Board()
    async with runner() as probing, agent(socket_path, LIARS["floods with others' answers"]):
        probing.watch("record", [PROBE], LOOPBACK, board, agent=socket_path)
        await board.until(lambda _, facts: len(board.answers) > 2)
    assert {facts.detail for _, facts in board.answers} == {"waiting for guest agent (the answer is too long)"}


async def test_a_child_that_nothing_is_handed_to_says_so() -> None:
    board = Board()
    async with runner() as probing:
        probing.watch("record", [PROBE], LOOPBACK, board)
        facts = await board.until(lambda _, facts: True)
    assert facts.detail == "probe crashed: cannot start probing: no way to the guest agent was handed over"


async def test_another_socket_is_another_watch(socket_path: Path) -> None:
    board = Board()
    async with runner() as probing, agent(socket_path, HONEST):
        probing.watch("record", [PROBE], LOOPBACK, board, agent=socket_path.with_name("elsewhere"))
        await board.until(lambda _, facts: not facts.ok)
        probing.watch("record", [PROBE], LOOPBACK, board, agent=socket_path)
        await board.until(lambda _, facts: facts.ok)


async def test_descriptors_do_not_add_up(socket_path: Path) -> None:
    before = descriptors()
    async with agent(socket_path, saying(b'{"return": {"version": "1"}}\n')):
        for _ in range(3):
            board = Board()
            async with runner() as probing:
                probing.watch("record", [PROBE], LOOPBACK, board, agent=socket_path)
                await board.until(lambda _, facts: facts.ok)
                probing.unwatch("record")
    assert descriptors() <= before
