"""Guest agents on unix sockets that answer as a test wants them to, truthful or not."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

Conduct = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
INFO = {"version": "7.2.22", "supported_commands": [{"name": "guest-info", "enabled": True, "success-response": True}]}


@asynccontextmanager
async def agent(path: Path, conduct: Conduct) -> AsyncIterator[asyncio.Queue[None]]:
    """An agent that treats each conversation with `conduct`; yields a queue that grows with each one that ended."""
    ended: asyncio.Queue[None] = asyncio.Queue()
    conversations: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await conduct(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.put_nowait(None)

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield ended
    finally:
        server.close()
        for _ in range(5):
            # Who was accepted at the last moment begins its conversation a few turns of the loop later.
            await asyncio.sleep(0)
        await asyncio.gather(*conversations)


async def request(reader: asyncio.StreamReader) -> dict[str, object]:
    """The next request; IncompleteReadError when the client is gone."""
    line = await reader.readuntil(b"\n")
    document: dict[str, object] = json.loads(line.lstrip(b"\xff"))
    return document


async def synchronise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await request(reader)
    arguments = asked["arguments"]
    assert isinstance(arguments, dict)
    writer.write(b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n")


def saying(*lines: bytes) -> Conduct:
    """In step, then one line for each request, then silence until the client goes."""

    async def conduct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await synchronise(reader, writer)
        for line in lines:
            await request(reader)
            writer.write(line)
        await reader.read()

    return conduct


HONEST = saying(json.dumps({"return": INFO}).encode() + b"\n")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closed with data unread, which a unix socket reports as a reset."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 40)
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 16384)
        await writer.drain()


async def endless_others(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b'\xff{"return": 5}\n' * 1000)
        await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"\xff")
        await writer.drain()
        await asyncio.sleep(0.01)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


async def wrong_number(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(b'\xff{"return": 5}\n')
    await reader.read()


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await synchronise(reader, writer)
    await request(reader)
    writer.write(b'{"return": {"version"')
    await reader.read()


LIARS: dict[str, Conduct] = {
    "silent": silent,
    "hangs up": hang_up,
    "resets": reset,
    "says garbage": garbage,
    "floods": endless,
    "floods with others' answers": endless_others,
    "drips": drip,
    "echoes": echo,
    "answers somebody else": wrong_number,
    "answers by half": half_an_answer,
    "answers with nonsense": saying(b"nonsense\n"),
    "answers with nothing": saying(b"{}\n"),
    "has no version": saying(b'{"return": {}}\n'),
    "has a version of 60,000 characters": saying(json.dumps({"return": {"version": "9" * 60_000}}).encode() + b"\n"),
    "has a version that rings": saying(b'{"return": {"version": "7\\u0007"}}\n'),
    "nests": saying(b'{"return": ' + b"[" * 50_000 + b"\n"),
    "refuses": saying(b'{"error": {"class": "CommandNotFound", "desc": "guest-info is \\u001b[1mdisabled"}}\n'),
}
