"""The laboratory's interface: results come in as HL7 v2 messages over MLLP and are kept before they are acknowledged.

An acknowledgement AA is a promise that survives a power cut, so the message is on stable storage first. A message for
test (MSH-11 = T) is acknowledged and not kept: a readiness probe never creates clinical data. Whatever cannot be read
is answered AR, whatever cannot be kept AE; neither ends the connection, nothing ends the server.
"""

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

LIBRARY = "/opt/laboratory"
if Path(LIBRARY).is_dir():
    sys.path.insert(0, LIBRARY)

import hl7  # noqa: E402
from hl7.mllp import (  # noqa: E402
    HL7StreamReader,
    HL7StreamWriter,
    InvalidBlockError,
    start_hl7_server,
)

PORT = 2575
STORE = Path("/var/lib/laboratory")
log = logging.getLogger(__name__)
LARGEST_MESSAGE = 1 << 20
IDLE_SECONDS = 600
UNPARSABLE = (
    hl7.HL7Exception,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What the parser raises for text that only resembles a message."""

UNREADABLE = "MSH|^~\\&|LABORATORY|HOSPITAL|||{now}||ACK|{now}|P|2.5\rMSA|AR||{reason}\r"


def keep(store: Path, block: bytes) -> Path:
    """Put one message on stable storage under a name that sorts by time; raises OSError when it is not certain."""
    name = f"{time.time_ns()}.hl7"
    partial = store / f".{name}"
    with partial.open("xb") as file:
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    final = partial.rename(store / name)
    folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return final


def unreadable(reason: str) -> str:
    """An AR for something that names no sender to answer to."""
    return UNREADABLE.format(now=time.strftime("%Y%m%d%H%M%S", time.gmtime()), reason=reason)


def answer(store: Path, untrusted_block: bytes) -> str:
    """The acknowledgement of one message, after keeping it if it is a result for care."""
    try:
        message = hl7.parse(untrusted_block.decode("utf-8"))
        header = message.segment("MSH")
        kind = f"{header(9)(1)(1)}^{header(9)(1)(2)}"
        purpose, control = str(header(11)), str(header(10))
        replies = {code: str(message.create_ack(code)) for code in ("AA", "AE", "AR")}
    except UNPARSABLE:
        return unreadable("not an HL7 v2 message")
    if not control:
        return unreadable("MSH-10 is empty")
    if purpose.startswith("T"):
        return replies["AA"]
    if kind != "ORU^R01":
        return replies["AR"]
    try:
        keep(store, untrusted_block)
    except OSError:
        log.exception("cannot keep a result")
        return replies["AE"]
    return replies["AA"]


async def serve(store: Path, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
    """Answer one connection until it ends, stays idle too long or sends what is not MLLP."""
    try:
        while True:
            try:
                block = await asyncio.wait_for(reader.readblock(), IDLE_SECONDS)
                reply = answer(store, block)
            except InvalidBlockError:
                reply = unreadable("not an MLLP block")
            except ValueError:
                reply = unreadable("message too large")
            writer.writeblock(reply.encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()


async def run(store: Path, port: int) -> None:
    """Serve for ever on every address of the machine."""

    def connected(reader: HL7StreamReader, writer: HL7StreamWriter) -> asyncio.Task[None]:
        task = asyncio.create_task(serve(store, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    tasks: set[asyncio.Task[None]] = set()
    server = await start_hl7_server(
        connected,
        "0.0.0.0",  # noqa: S104 - the machine has one network, and serves it
        port,
        limit=LARGEST_MESSAGE,
        encoding="utf-8",
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(STORE, PORT))
