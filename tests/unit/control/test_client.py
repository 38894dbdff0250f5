"""What a client makes of a daemon that is broken or means harm: both ways to ask for the status, the same words."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cleanroomd.control.client import Client
from cleanroomd.control.client.messages import REPLY_LIMIT
from cleanroomd.control.client.once import read_status
from cleanroomd.control.interface import ControlInterface
from cleanroomd.control.server import ControlServer
from cleanroomd.errors import ControlError
from cleanroomd.model.status import Status
from tests.unit.control.fake import STATUS, FakeEnclosure

Ask = Callable[[Path, float], Awaitable[Status]]
DOCUMENT: dict[str, Any] = json.loads(json.dumps(asdict(STATUS)))
LONG = 60.0


async def ask_client(path: Path, patience: float) -> Status:
    return await Client(path, patience=patience).status()


async def ask_once(path: Path, patience: float) -> Status:
    return await asyncio.to_thread(read_status, path, patience=patience)


pytestmark = pytest.mark.parametrize("ask", [ask_client, ask_once])


@asynccontextmanager
async def daemon(path: Path, say: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[None]:
    """A daemon that says what it likes after the first message, then closes; it ends with its clients."""
    answers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")
        try:
            await say(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.create_task(answer(reader, writer)))

    async with await asyncio.start_unix_server(connected, path):
        yield
        await asyncio.gather(*answers)


def answering(path: Path, *chunks: bytes) -> AbstractAsyncContextManager[None]:
    async def say(writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()

    return daemon(path, say)


def reply(**changes: object) -> bytes:
    return json.dumps({"parameters": {"status": DOCUMENT | changes}}).encode() + b"\0"


def refusal(error: str, /, **parameters: object) -> bytes:
    return json.dumps({"error": error, "parameters": parameters}).encode() + b"\0"


async def test_the_status_of_a_daemon(tmp_path: Path, ask: Ask) -> None:
    async with ControlServer(FakeEnclosure(), tmp_path / "control"):
        assert await ask(tmp_path / "control", LONG) == STATUS


async def test_a_reply_may_come_in_pieces_and_with_more_behind_it(tmp_path: Path, ask: Ask) -> None:
    whole = reply()
    async with answering(tmp_path / "control", whole[:7], whole[7:-1], b"\0garbage"):
        assert await ask(tmp_path / "control", LONG) == STATUS


async def test_what_may_be_null_may_be_missing(tmp_path: Path, ask: Ask) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != "restored_after"}
    message = json.dumps({"parameters": {"status": document}, "extension": 1}).encode() + b"\0"
    async with answering(tmp_path / "control", message):
        assert await ask(tmp_path / "control", LONG) == STATUS


@pytest.mark.parametrize(
    "answer",
    [
        b"\0",
        b"[]\0",
        b"{}\0",
        b"nonsense\0",
        b"\xff\0",
        b"9" * 5000 + b"\0",
        b"[" * 100_000 + b"\0",
        b'{"parameters": []}\0',
        b'{"parameters": {}}\0',
        b'{"parameters": {"status": null}}\0',
        b'{"parameters": {"status": {}}}\0',
        b'{"error": 5}\0',
        b'{"error": "org.cleanroomd.Control.Cannot"}\0',
        b'{"error": "org.cleanroomd.Control.Cannot", "parameters": {"message": 1, "hint": ""}}\0',
        reply(unknown=1),
        reply(state="FINE"),
        reply(state=None),
        reply(now="soon"),
        reply(now=True),
        reply(now=10**400),
        reply(unsealed=0),
        reply(enclosure=["x"]),
        reply(services={}),
        reply(services=[5]),
        reply(isolation=[]),
        reply(isolation=DOCUMENT["isolation"] | {"generation": True}),
        reply()[:-2] + b', "continues": 1}\0',
        reply()[:-3] + b', "other": 1}}\0',
        b"x" * (REPLY_LIMIT + 1) + b"\0",
    ],
)
async def test_a_strange_answer_is_not_understood(tmp_path: Path, ask: Ask, answer: bytes) -> None:
    async with answering(tmp_path / "control", answer):
        with pytest.raises(ControlError, match=r"^cannot read the status: what cleanroomd answered is not understood"):
            await ask(tmp_path / "control", LONG)


async def test_an_answer_without_end_is_cut_off(tmp_path: Path, ask: Ask) -> None:
    taken = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            taken += 65_536

    async with daemon(tmp_path / "control", flood):
        with pytest.raises(ControlError, match="not understood"):
            await ask(tmp_path / "control", LONG)
    assert taken < 3 * REPLY_LIMIT


async def test_patience_is_for_the_whole_answer(tmp_path: Path, ask: Ask) -> None:
    """A daemon that drips keeps nobody longer than one that is silent."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with daemon(tmp_path / "control", drip):
        with pytest.raises(ControlError, match="does not answer"):
            await ask(tmp_path / "control", 0.2)


async def test_silence_is_told(tmp_path: Path, ask: Ask) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "control"))
        deaf.listen()
        with pytest.raises(ControlError, match="does not answer"):
            await ask(tmp_path / "control", 0.05)


@pytest.mark.parametrize("chunks", [(), (b'{"parameters"',)])
async def test_a_connection_that_closes_early_is_told(tmp_path: Path, ask: Ask, chunks: tuple[bytes, ...]) -> None:
    async with answering(tmp_path / "control", *chunks):
        with pytest.raises(ControlError, match="closed the connection"):
            await ask(tmp_path / "control", LONG)


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (
            refusal("org.cleanroomd.Control.NotAllowed", needs="root"),
            "cannot read the status: only root may",
            "use sudo",
        ),
        (refusal("org.cleanroomd.Control.Cannot", message="cannot x: y", hint="do z"), "cannot x: y", "do z"),
        (
            refusal("org.cleanroomd.Control.NoSuchService", name="a", hint="did you mean b?"),
            "cannot read the status: the plan has no such service",
            "did you mean b?",
        ),
        (refusal("org.cleanroomd.Control.Fault"), "cannot read the status: cleanroomd failed at it", "journalctl"),
        (
            refusal("org.varlink.service.MethodNotFound", method="x"),
            "cannot read the status: cleanroomd answered org.varlink.service.MethodNotFound",
            "use the cleanroomctl",
        ),
    ],
)
async def test_a_refusal_is_told_in_its_words(tmp_path: Path, ask: Ask, answer: bytes, message: str, hint: str) -> None:
    name = json.loads(answer[:-1])["error"]
    ours = {f"{ControlInterface.name}.{error.__name__}" for error in ControlInterface.errors}
    assert name in ours or name.startswith("org.varlink.service.")
    async with answering(tmp_path / "control", answer):
        with pytest.raises(ControlError) as caught:
            await ask(tmp_path / "control", LONG)
    assert caught.value.message == message
    assert hint in caught.value.hint


async def test_no_daemon_is_told(tmp_path: Path, ask: Ask) -> None:
    for path in (tmp_path / "nowhere", tmp_path / ("x" * 200)):
        with pytest.raises(ControlError, match=r"^cannot reach cleanroomd: .* on /"):
            await ask(path, LONG)
