"""Calls to the daemon, and streams from it.

asyncvarlink's client transport is not used: that one reads as fast as the daemon writes, whatever the consumer
does, and has no limit; asyncio's streams have both.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from cleanroomd.control.client.messages import END, PATIENCE, REPLY_LIMIT, StrPath, decode_reply, encode_call, explained
from cleanroomd.control.wire import JournalEntry
from cleanroomd.model.lesson import Lesson
from cleanroomd.model.status import Status
from cleanroomd.model.verification import IsolationView, Verification

_VERIFYING = 90.0
"""Seconds; a daemon that is told by then that it cannot verify says so itself."""


class Client:
    """Each call has a connection of its own, so calls may overlap and a watch holds up none of them.

    Whatever goes wrong is a ControlError.
    """

    def __init__(self, path: StrPath, *, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience

    async def status(self) -> Status:
        status: Status = await self._call("read the status", "GetStatus")
        return status

    async def watch(self) -> AsyncGenerator[Status, None]:
        """The status at once and at every change, for ever; close the generator to stop."""
        async with aclosing(self._replies("read the status", "WatchStatus", {}, more=True)) as replies:
            async for status in replies:
                yield status

    async def start(self, service: str) -> str:
        """These return what was asked for, in words; what becomes of it shows in the status."""
        return str(await self._call(f"start {service}", "Start", service=service))

    async def stop(self, service: str) -> str:
        return str(await self._call(f"stop {service}", "Stop", service=service))

    async def restore(self) -> str:
        return str(await self._call("restore", "Restore"))

    async def shutdown(self) -> str:
        return str(await self._call("shut down", "Shutdown"))

    async def open_uplink(self, window: str, seconds: float, reason: str) -> str:
        return str(
            await self._call(f"open {window}", "OpenUplink", window=window, seconds=float(seconds), reason=reason)
        )

    async def close_uplink(self, window: str | None = None) -> str:
        named = {} if window is None else {"window": window}
        return str(await self._call(f"close {window or 'the uplink'}", "CloseUplink", **named))

    async def isolation(self) -> IsolationView:
        """Who may talk to whom at this moment, and what was denied."""
        view: IsolationView = await self._call("see the isolation", "GetIsolation")
        return view

    async def learn(self) -> Lesson:
        """What was denied lately, as flows that a plan could have."""
        lesson: Lesson = await self._call("learn flows", "LearnFlows")
        return lesson

    async def verify_isolation(self) -> Verification:
        """The live kernel against the plan; the daemon gives itself a minute at most."""
        with_patience = Client(self._path, patience=max(self._patience, _VERIFYING))
        found: Verification = await with_patience._call("verify the isolation", "VerifyIsolation")
        return found

    async def journal(
        self, *, follow: bool = False, last: int | None = None, service: str | None = None
    ) -> AsyncGenerator[JournalEntry, None]:
        """The run journal from its beginning, or its `last` entries; with `follow` it goes on for ever.

        With `service` only what is about that service.
        """
        parameters: dict[str, object] = {"follow": follow}
        if last is not None:
            parameters["last"] = last
        if service is not None:
            parameters["service"] = service
        replies = self._replies("read the journal", "ReadJournal", parameters, more=True)
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
        """What each reply brings."""
        patience: float | None = self._patience
        with explained(deed, self._path):
            async with _connected(self._path) as (reader, writer):
                writer.write(encode_call(method, parameters, more=more))
                while True:
                    async with asyncio.timeout(patience):
                        untrusted_message = await _message(reader)
                    value, continues = decode_reply(deed, method, untrusted_message)
                    yield value
                    if not continues:
                        return
                    patience = None


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next message, without its END; IncompleteReadError, which is an EOFError, when there is none."""
    try:
        return (await reader.readuntil(END)).removesuffix(END)
    except asyncio.LimitOverrunError as error:
        raise ValueError("a reply beyond the limit") from error


@asynccontextmanager
async def _connected(path: StrPath) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.close()
