"""The daemon's own conversations with a guest agent, and with what only pretends to be one."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from cleanroomd.errors import MachineError
from cleanroomd.machine import agent as module
from cleanroomd.machine.agent import connect

from .agents import HONEST, INFO, LIARS, agent, hang_up, request, saying, silent, synchronise

SECONDS = 0.5


@pytest.mark.parametrize("noise", [b"", b'{"return": {"half', b'{"error": {}}\n\xff{"return": 5}\n'])
async def test_an_agent_gives_its_version_whatever_an_earlier_client_left(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "agent.sock"

    async def conduct(reader: asyncio.StreamReader, writer: module.asyncio.StreamWriter) -> None:
        writer.write(noise)
        await HONEST(reader, writer)

    async with agent(path, conduct), connect(path, "record", seconds=5) as connection:
        assert await connection.version() == "7.2.22"


@pytest.mark.parametrize("kind", LIARS)
async def test_a_liar_is_an_error_in_time_and_in_words(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "agent.sock"
    async with agent(path, LIARS[kind]):
        with pytest.raises(MachineError, match="guest agent of record") as caught:
            async with connect(path, "record", seconds=SECONDS) as connection:
                await connection.version()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


async def test_where_nothing_listens_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="No such file"):
        async with connect(tmp_path / "agent.sock", "record", seconds=SECONDS):
            raise AssertionError


async def test_a_queue_of_others_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(0)
        other.connect(str(path))
        with pytest.raises(MachineError, match="others are talking to it"):
            async with connect(path, "record", seconds=SECONDS):
                raise AssertionError


async def test_a_conversation_is_over_when_its_block_is(tmp_path: Path) -> None:
    """QEMU serves nobody else until then."""
    path = tmp_path / "agent.sock"
    async with agent(path, HONEST) as ended:
        for _ in range(3):
            async with connect(path, "record", seconds=5) as connection:
                await connection.version()
            await ended.get()


async def test_a_shutdown_that_is_refused_says_why(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    refusal = saying(b'{"error": {"class": "GenericError", "desc": "child process has failed to shutdown"}}\n')
    async with agent(path, refusal), connect(path, "record", seconds=5) as connection:
        with pytest.raises(MachineError, match="for guest-shutdown: child process has failed to shutdown"):
            await connection.shut_down()


async def test_a_shutdown_that_is_not_answered_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFUSAL_SECONDS", 0.1)
    path = tmp_path / "agent.sock"
    asked: list[object] = []

    async def conduct(reader: asyncio.StreamReader, writer: module.asyncio.StreamWriter) -> None:
        await synchronise(reader, writer)
        asked.append(await request(reader))
        await silent(reader, writer)

    async with agent(path, conduct), connect(path, "record", seconds=5) as connection:
        await connection.shut_down()
    assert asked == [{"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}]


async def test_a_machine_that_ends_while_it_is_asked_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def conduct(reader: asyncio.StreamReader, writer: module.asyncio.StreamWriter) -> None:
        await synchronise(reader, writer)
        await hang_up(reader, writer)

    async with agent(path, conduct), connect(path, "record", seconds=5) as connection:
        await connection.shut_down()


async def test_what_a_command_returns_is_limited_as_the_caller_says(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    long = saying(json.dumps({"return": {**INFO, "out-data": "x" * 100_000}}).encode() + b"\n")
    async with agent(path, long):
        async with connect(path, "record", seconds=5, limit=1 << 20) as connection:
            assert isinstance(await connection.ask("guest-exec-status"), dict)
        with pytest.raises(MachineError, match="too long"):
            async with connect(path, "record", seconds=5) as connection:
                await connection.ask("guest-exec-status")
