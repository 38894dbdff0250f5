"""A machine's guest agent, over the socket that QEMU serves for it.

What comes back is written by the machine: it is capped, it has a deadline, and only plain values are taken. The agent
talks to one client at a time, so conversations are short. The daemon asks it for its version and to shut down, and
for nothing else: it never runs a program in a machine.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cleanroomd.agent_protocol import (
    REPLY_LIMIT,
    AgentAnswerError,
    AgentRefusalError,
    Incoming,
    agent_version,
    request,
    sync_request,
)
from cleanroomd.errors import MachineError

_REFUSAL_SECONDS = 3.0
"""How long a refused guest-shutdown may take to say so; one that is carried out is not answered at all."""
_CHUNK = 16 * 1024
_QUOTED = 200
_HINT = "check that qemu-guest-agent is installed in the machine and runs"


class GuestAgent:
    """One conversation with the agent of one machine, in step with it."""

    def __init__(
        self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int, seconds: float
    ) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._incoming = Incoming(limit)
        self._seconds = seconds

    async def synchronise(self) -> None:
        """Be sure that what comes next is for us; MachineError when no answer to that comes in time."""
        number = secrets.randbits(31)
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(sync_request(number))
                while not self._incoming.synchronised(number):
                    await self._receive()
        except (AgentAnswerError, OSError) as error:
            raise MachineError(f"cannot reach the guest agent of {self._service}: {_words(error)}", _HINT) from error

    async def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """What `command` returned, never None and unchecked otherwise; MachineError for anything else."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(request(command, arguments))
                return await self._answer()
        except (AgentAnswerError, AgentRefusalError, OSError) as error:
            raise self._failure(command, error) from error

    async def version(self) -> str:
        """The agent's version as guest-info gives it, printable."""
        try:
            return agent_version(await self.ask("guest-info"))
        except AgentAnswerError as error:
            raise self._failure("guest-info", error) from error

    async def shut_down(self) -> None:
        """Have the machine's system shut down and power off; MachineError when that is refused.

        A return means that it was asked and has not refused: only the end of the machine shows that it complied.
        """
        command = "guest-shutdown"
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(request(command, {"mode": "powerdown"}))
        except OSError as error:
            raise self._failure(command, error) from error
        try:
            async with asyncio.timeout(min(self._seconds, _REFUSAL_SECONDS)):
                await self._answer()
        except AgentRefusalError as error:
            raise self._failure(command, error) from error
        except (AgentAnswerError, OSError):
            # Silence, or a machine that ends meanwhile: what a success looks like from here.
            return

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _receive(self) -> None:
        self._incoming.feed(await self._reader.read(_CHUNK))

    async def _answer(self) -> object:
        while (answer := self._incoming.answer()) is None:
            await self._receive()
        return answer

    def _failure(self, command: str, error: Exception) -> MachineError:
        return MachineError(f"cannot ask the guest agent of {self._service} for {command}: {_words(error)}", _HINT)


@asynccontextmanager
async def connect(path: Path, service: str, *, seconds: float, limit: int = REPLY_LIMIT) -> AsyncIterator[GuestAgent]:
    """A conversation with the agent behind the socket `path`; MachineError when it does not answer.

    Each question has `seconds` to be answered, and all answers together have `limit` bytes.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(0)
        # Without the loop: a full backlog is an error at once, and asyncio would take it for a connection to come.
        connection.connect(str(path))
        reader, writer = await asyncio.open_unix_connection(sock=connection)
    except OSError as error:
        connection.close()
        raise MachineError(f"cannot reach the guest agent of {service}: {_words(error)}", _HINT) from error
    try:
        agent = GuestAgent(service, reader, writer, limit, seconds)
        await agent.synchronise()
        yield agent
    finally:
        # Not in good order: what is not yet sent would keep the connection, and with it the agent, for ever.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, BlockingIOError):
        return "others are talking to it"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return "".join(character for character in text[:_QUOTED] if character.isprintable())
