"""Clients that mean harm, or are broken: the others never notice."""

import array
import asyncio
import json
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from cleanroomd.control.access import PLACES_PER_USER
from cleanroomd.control.client import Client
from cleanroomd.control.connection import MESSAGE_LIMIT
from cleanroomd.control.server import ControlServer
from cleanroomd.errors import ControlError
from tests.unit.control.fake import STATUS, FakeEnclosure

GET = b'{"method": "org.cleanroomd.Control.GetStatus"}\0'
WATCH = b'{"method": "org.cleanroomd.Control.WatchStatus", "more": true}\0'


@pytest.fixture
def enclosure() -> FakeEnclosure:
    return FakeEnclosure()


@pytest_asyncio.fixture
async def path(tmp_path: Path, enclosure: FakeEnclosure) -> AsyncIterator[Path]:
    async with ControlServer(enclosure, tmp_path / "control"):
        yield tmp_path / "control"
    await enclosure.until_subscribers(0)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@pytest_asyncio.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    writers = []

    async def connection() -> Streams:
        reader, writer = await asyncio.open_unix_connection(path)
        writers.append(writer)
        return reader, writer

    yield connection
    for writer in writers:
        writer.close()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """What the server still said before it cut the connection."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


async def reply(reader: asyncio.StreamReader) -> dict[str, object]:
    answer: dict[str, object] = json.loads((await reader.readuntil(b"\0"))[:-1])
    return answer


async def test_a_message_without_end_is_cut_off(connect: Connect, path: Path) -> None:
    reader, writer = await connect()
    writer.write(b'{"method": "' + b"x" * 10_000_000)
    assert await until_cut(reader) == b""
    assert await Client(path).status() == STATUS


async def test_a_long_message_is_cut_off_even_if_it_ends(connect: Connect, path: Path) -> None:
    reader, writer = await connect()
    writer.write(GET + b'{"method": "' + b"x" * (2 * MESSAGE_LIMIT) + b'"}\0')
    await until_cut(reader)
    assert await Client(path).status() == STATUS


async def test_half_a_message_waits_for_the_other_half(connect: Connect, path: Path) -> None:
    reader, writer = await connect()
    writer.write(GET[:20])
    assert await Client(path).status() == STATUS
    writer.write(GET[20:])
    assert "parameters" in await reply(reader)


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"null\0",
        b"[]\0",
        b'{"method"\0',
        b"\xff\xfe\xfa\0",
        b"9" * 5000 + b"\0",
        b"[" * 30_000 + b"\0",
        b'{"a":' * 12_000 + b"\0",
    ],
)
async def test_what_is_no_json_object_is_cut_off(
    connect: Connect, path: Path, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect()
    writer.write(message)
    assert await until_cut(reader) == b""
    assert await Client(path).status() == STATUS
    assert "disconnected a client" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"{}", "org.cleanroomd.Control.NoCall"),
        (b'{"method": 5}', "org.cleanroomd.Control.NoCall"),
        (b'{"method": "Start"}', "org.cleanroomd.Control.NoCall"),
        (b'{"method": "a.b.C", "more": true, "upgrade": true}', "org.cleanroomd.Control.NoCall"),
        (b'{"method": "org.example.Other.Do"}', "org.varlink.service.InterfaceNotFound"),
        (b'{"method": "org.cleanroomd.Control.Format"}', "org.varlink.service.MethodNotFound"),
        (b'{"method": "org.cleanroomd.Control.WatchStatus"}', "org.varlink.service.ExpectedMore"),
        (b'{"method": "org.cleanroomd.Control.Start"}', "org.varlink.service.InvalidParameter"),
        (
            b'{"method": "org.cleanroomd.Control.Start", "parameters": {"service": 1}}',
            "org.varlink.service.InvalidParameter",
        ),
        (
            b'{"method": "org.cleanroomd.Control.GetStatus", "parameters": {"x": 1}}',
            "org.varlink.service.InvalidParameter",
        ),
        (
            b'{"method": "org.cleanroomd.Control.Start", "parameters": {"service": "\\ud800"}}',
            "org.cleanroomd.Control.NoSuchService",
        ),
    ],
)
async def test_a_wrong_call_is_answered_and_the_next_one_too(
    connect: Connect, path: Path, message: bytes, error: str
) -> None:
    reader, writer = await connect()
    writer.write(message + b"\0" + GET)
    assert (await reply(reader))["error"] == error
    assert "error" not in await reply(reader)


async def test_calls_without_wish_for_a_reply_get_none(connect: Connect, path: Path, enclosure: FakeEnclosure) -> None:
    reader, writer = await connect()
    writer.write(b'{"method": "org.cleanroomd.Control.Restore", "oneway": true}\0')
    writer.write(b'{"method": "org.cleanroomd.Control.Nothing", "oneway": true}\0' + GET)
    answer = await reply(reader)
    assert answer["parameters"]["status"]["enclosure"] == STATUS.enclosure  # type: ignore[index]
    assert enclosure.asked == ["restore"]


async def test_pipelined_calls_are_answered_in_order(connect: Connect, path: Path, enclosure: FakeEnclosure) -> None:
    reader, writer = await connect()
    restore = b'{"method": "org.cleanroomd.Control.Restore"}\0'
    writer.write((restore + GET) * 500)
    for _ in range(500):
        assert "request" in (await reply(reader))["parameters"]  # type: ignore[operator]
        assert "status" in (await reply(reader))["parameters"]  # type: ignore[operator]
    assert len(enclosure.asked) == 500


async def test_who_half_closes_gets_the_replies_to_what_was_asked(connect: Connect, path: Path) -> None:
    reader, writer = await connect()
    writer.write(GET * 3)
    writer.write_eof()
    assert (await reader.read()).count(b"\0") == 3


async def test_a_flood_without_reading_stops_at_the_kernels_buffers(
    path: Path, enclosure: FakeEnclosure, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    status = enclosure.status

    def counted() -> object:
        nonlocal calls
        calls += 1
        return status()

    monkeypatch.setattr(enclosure, "status", counted)
    with socket.socket(socket.AF_UNIX) as flood:
        flood.connect(str(path))
        flood.setblocking(False)
        written = seen = quiet = 0
        while quiet < 500:
            try:
                written += flood.send(GET * 1000)
                quiet = 0
            except BlockingIOError:
                quiet = quiet + 1 if calls == seen else 0
            seen = calls
            await asyncio.sleep(0)
        answered = calls
        assert written // len(GET) > 2 * answered
        assert await Client(path).status() == STATUS
        assert calls == answered + 1


async def test_a_call_during_a_stream_ends_the_connection(
    connect: Connect, path: Path, enclosure: FakeEnclosure
) -> None:
    reader, writer = await connect()
    writer.write(WATCH)
    await reply(reader)
    writer.write(GET)
    await until_cut(reader)
    await enclosure.until_subscribers(0)


async def test_a_watcher_that_leaves_is_forgotten_before_anything_changes(
    connect: Connect, path: Path, enclosure: FakeEnclosure
) -> None:
    _, writer = await connect()
    writer.write(WATCH)
    await enclosure.until_subscribers(1)
    writer.close()
    await enclosure.until_subscribers(0)


async def test_a_watcher_that_leaves_with_its_replies_unread_is_forgotten(path: Path, enclosure: FakeEnclosure) -> None:
    with socket.socket(socket.AF_UNIX) as watcher:
        watcher.connect(str(path))
        watcher.sendall(WATCH)
        await enclosure.until_subscribers(1)
        for _ in range(2000):
            enclosure.publish(STATUS)
            await asyncio.sleep(0)
    await enclosure.until_subscribers(0)


async def test_a_watcher_that_only_reads_again_later_finds_an_orderly_end(
    connect: Connect, path: Path, enclosure: FakeEnclosure, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect()
    writer.write(WATCH)
    await enclosure.until_subscribers(1)
    for _ in range(2000):
        enclosure.publish(STATUS)
        await asyncio.sleep(0)
    writer.write_eof()
    await enclosure.until_subscribers(0)
    assert (await reader.read()).endswith(b"}\0")
    assert caplog.text == ""


async def test_calls_beside_what_breaks_the_protocol_are_not_carried_out(
    connect: Connect, path: Path, enclosure: FakeEnclosure
) -> None:
    reader, writer = await connect()
    writer.write(b'{"method": "org.cleanroomd.Control.Shutdown"}\0' * 3 + b"\xff\xfe\xfa\0")
    await until_cut(reader)
    await Client(path).status()
    assert enclosure.asked == []


async def test_running_out_of_descriptors_is_survived(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await loop.sock_connect(client, str(path))
            while "cannot accept" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await loop.sock_sendall(client, GET)
        assert await loop.sock_recv(client, 1 << 16)


async def test_passed_descriptors_are_closed(path: Path) -> None:
    before = descriptors()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        passed = array.array("i", [0] * 200)
        client.sendmsg([GET[:10]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        client.sendmsg([GET[10:]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        client.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(client, 1 << 16)
        assert len(descriptors() - before) < 10


async def test_idle_clients_take_the_places_of_their_own_user_only(connect: Connect, path: Path) -> None:
    idle = [await connect() for _ in range(PLACES_PER_USER)]
    with pytest.raises(ControlError, match="closed the connection"):
        await Client(path).status()
    idle[0][1].close()
    while True:
        try:
            assert await Client(path).status() == STATUS
            break
        except ControlError:
            await asyncio.sleep(0)
