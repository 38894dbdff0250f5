"""Calls to the daemon.

asyncvarlink gives the types and the messages. Its client transport is not used: that one reads as fast as the
daemon writes, whatever the consumer does, and has no limit; asyncio's streams have both.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from asyncvarlink import (
    VarlinkErrorReply,
    VarlinkMethodCall,
    VarlinkMethodReply,
    varlinksignature,
)
from asyncvarlink.conversion import ConversionError

from cleanroomd.control.interface import Cannot, ControlInterface, Fault, NoSuchService, NotAllowed
from cleanroomd.control.wire import JournalEntry, from_wire
from cleanroomd.errors import ControlError
from cleanroomd.model.status import Status

REPLY_LIMIT = 4 * 1024 * 1024
"""Bytes of one reply; a status has about 400 for each service."""

PATIENCE = 10.0
"""Seconds until a daemon that does not answer is said not to. Streams have it for their first reply only."""


class Client:
    """Each call has a connection of its own, so calls may overlap and a watch holds up none of them.

    Whatever goes wrong is a ControlError.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience

    async def status(self) -> Status:
        return from_wire(Status, await self._call("read the status", "GetStatus"))

    async def watch(self) -> AsyncGenerator[Status, None]:
        """The status at once and at every change, for ever; close the generator to stop."""
        async with aclosing(self._replies("read the status", "WatchStatus", {}, more=True)) as replies:
            async for reply in replies:
                yield from_wire(Status, reply)

    async def start(self, service: str) -> str:
        """These return what was asked for, in words; what becomes of it shows in the status."""
        return str(await self._call(f"start {service}", "Start", service=service))

    async def stop(self, service: str) -> str:
        return str(await self._call(f"stop {service}", "Stop", service=service))

    async def restore(self) -> str:
        return str(await self._call("restore", "Restore"))

    async def shutdown(self) -> str:
        return str(await self._call("shut down", "Shutdown"))

    async def journal(self, *, follow: bool = False) -> AsyncGenerator[JournalEntry, None]:
        """The run journal from its beginning; with `follow` it goes on for ever."""
        replies = self._replies("read the journal", "ReadJournal", {"follow": follow}, more=True)
        async with aclosing(replies):
            async for entry in replies:
                if entry is not None:
                    yield entry

    async def _call(self, deed: str, method: str, **parameters: object) -> Any:
        async with aclosing(self._replies(deed, method, parameters, more=False)) as replies:
            return await anext(replies)

    async def _replies(
        self, deed: str, method: str, parameters: dict[str, object], *, more: bool
    ) -> AsyncGenerator[Any, None]:
        """The one parameter of each reply, whatever its name is."""
        signature = varlinksignature(getattr(ControlInterface, method))
        if signature is None:
            raise TypeError(f"{method} is no method of the interface")
        sent = signature.parameter_type.tojson(parameters)
        call = VarlinkMethodCall(f"{ControlInterface.name}.{method}", sent, more=more)
        patience: float | None = self._patience
        with _explained(deed, self._path):
            async with _connected(self._path) as (reader, writer):
                writer.write(json.dumps(call.tojson()).encode() + b"\0")
                while True:
                    async with asyncio.timeout(patience):
                        reply = VarlinkMethodReply.fromjson(json.loads((await reader.readuntil(b"\0"))[:-1]))
                    if reply.error is not None:
                        ControlInterface.raise_error(reply)
                    (value,) = signature.return_type.fromjson(reply.parameters).values()
                    yield value
                    if not reply.continues:
                        return
                    patience = None


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextmanager
def _explained(deed: str, path: Path) -> Iterator[None]:
    """Every way in which a call can fail, as a ControlError."""
    try:
        yield
    except VarlinkErrorReply as error:
        raise _refusal(deed, error) from error
    except TimeoutError as error:
        raise ControlError(
            "cannot reach cleanroomd: it does not answer", "look at its journal: journalctl -u cleanroomd"
        ) from error
    except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError) as error:
        raise ControlError(
            "cannot reach cleanroomd: it closed the connection",
            "it may be restarting, or have too many clients; try again in some seconds",
        ) from error
    except OSError as error:
        cause = "nothing answers" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else error.strerror
        raise ControlError(
            f"cannot reach cleanroomd: {cause or error} on {path}",
            "is the enclosure on? another socket is named with --socket or CLEANROOM_CONTROL",
        ) from error
    except (ConversionError, TypeError, ValueError, asyncio.LimitOverrunError) as error:
        raise ControlError(
            f"cannot {deed}: what cleanroomd answered is not understood",
            "use the cleanroomctl that was installed with it",
        ) from error


def _refusal(deed: str, error: VarlinkErrorReply) -> ControlError:
    match error:
        case NoSuchService():
            return ControlError(f"cannot {deed}: the plan has no such service", str(error.p_hint))
        case NotAllowed():
            return ControlError(f"cannot {deed}: only {error.p_needs} may", "use sudo, or ask to be made a member")
        case Cannot():
            return ControlError(str(error.p_message), str(error.p_hint))
        case Fault():
            return ControlError(
                f"cannot {deed}: cleanroomd failed at it", "its journal says how: journalctl -u cleanroomd"
            )
    return ControlError(
        f"cannot {deed}: cleanroomd answered {error.name}", "use the cleanroomctl that was installed with it"
    )
