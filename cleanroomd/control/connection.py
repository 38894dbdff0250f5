"""One client's connection, with the limits that asyncvarlink has not: a hostile client costs next to nothing.

A message is at most MESSAGE_LIMIT bytes. Calls are taken one at a time: the next is read only when the
replies to the one before have been written, so neither calls nor replies ever queue up. While replies
stream the connection is read only to notice that the client left; another call in that time ends it.
Descriptors that a client passes are closed unseen. Whoever breaks the protocol is disconnected.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from asyncvarlink import (
    AnnotatedResult,
    FileDescriptorArray,
    VarlinkErrorReply,
    VarlinkInterfaceRegistry,
    VarlinkMethodCall,
    VarlinkMethodReply,
    VarlinkMethodSignature,
    VarlinkProtocol,
    VarlinkTransport,
)
from asyncvarlink.conversion import ConversionError
from asyncvarlink.serviceinterface import InvalidParameter

from cleanroomd.control.interface import Fault, NoCall

MESSAGE_LIMIT = 64 * 1024
"""Bytes of one call; the longest legitimate one has a few hundred."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    method: Callable[..., Any]
    signature: VarlinkMethodSignature
    parameters: dict[str, Any]


class Connection(VarlinkProtocol):
    def __init__(self, registry: VarlinkInterfaceRegistry, *, left: Callable[["Connection"], None]) -> None:
        """`left` is called once, when the connection is over."""
        super().__init__()
        self._registry = registry
        self._left = left
        self._link: VarlinkTransport | None = None
        self._pending = 0
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    async def end(self) -> None:
        """Cut the connection; whatever was being served has unwound when this returns."""
        if self._link is not None:
            self._link.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, VarlinkTransport):
            self._link = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self.close()
        if self._task is not None:
            self._task.cancel()
        self._left(self)

    def eof_received(self) -> None:
        """A stream has lost its reader. A single call has been answered by now: nothing is read before."""
        self._ended = True
        if self._task is None or self._task.done():
            self.close()
        else:
            self._task.cancel()

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        if self._link is None or self._link.is_closing():
            return
        rest = len(data) - 1 - data.rfind(b"\0")
        self._pending = rest if rest < len(data) else self._pending + rest
        if self._pending > MESSAGE_LIMIT:
            self._break_off(f"a message is longer than {MESSAGE_LIMIT} bytes")
            return
        try:
            super().message_received(data, fds)
        except (ValueError, RecursionError) as error:
            # json.loads() raises more than the JSONDecodeError that asyncvarlink awaits.
            self._break_off(f"a message is no JSON: {error!r}")

    def error_received(self, err: Exception, _data: bytes, _fds: FileDescriptorArray | None) -> None:
        self._break_off(f"a message is no JSON object: {err!r}")

    def request_received(self, obj: dict[str, Any], _fds: FileDescriptorArray | None) -> asyncio.Future[None] | None:
        """The future holds back the next call, and all reading, until the reply has been written."""
        if self._link is None or self._link.is_closing():
            # It was read together with what ended the connection.
            return None
        if self._task is not None and not self._task.done():
            self._break_off("a call came while replies were streaming")
            return None
        loop = asyncio.get_running_loop()
        call: _Call | VarlinkErrorReply
        try:
            call = self._understood(obj)
        except VarlinkErrorReply as error:
            call = error
        self._task = loop.create_task(self._serve(call, silent=obj.get("oneway") is True))
        answered = loop.create_future()

        def done(_: asyncio.Task[None]) -> None:
            answered.set_result(None)
            if self._ended:
                self.close()

        self._task.add_done_callback(done)
        streams = isinstance(call, _Call) and call.signature.more
        return None if streams else answered

    def _break_off(self, reason: str) -> None:
        _log.warning("disconnected a client: %s", reason)
        if self._link is not None:
            self._link.abort()

    def _understood(self, untrusted_call: dict[str, Any]) -> _Call:
        """The call, checked against the interface; VarlinkErrorReply if it is none."""
        try:
            call = VarlinkMethodCall.fromjson(untrusted_call)
        except (TypeError, ValueError) as error:
            raise NoCall(reason=str(error)[:200]) from error
        method, signature = self._registry.lookup_method(call)
        try:
            parameters = signature.parameter_type.fromjson(call.parameters)
        except ConversionError as error:
            where = str(error.location[0]) if error.location else ""
            raise InvalidParameter(parameter=where) from error
        return _Call(method, signature, parameters)

    async def _serve(self, call: _Call | VarlinkErrorReply, *, silent: bool) -> None:
        try:
            if isinstance(call, VarlinkErrorReply):
                raise call
            reply = await (self._stream(call) if call.signature.more else self._answer(call))
        except VarlinkErrorReply as error:
            reply = error.toreply()
        except Exception:  # noqa: BLE001 - the boundary of one call: the daemon outlives it
            _log.exception("a control call failed")
            reply = Fault().toreply()
        if reply is not None and not silent:
            await self._send(reply)

    async def _answer(self, call: _Call) -> VarlinkMethodReply | None:
        result = call.method(**call.parameters)
        if call.signature.asynchronous:
            result = await result
        return _reply(call.signature, result)

    async def _stream(self, call: _Call) -> VarlinkMethodReply | None:
        async with aclosing(call.method(**call.parameters)) as results:
            async for result in results:
                if not await self._send(_reply(call.signature, result)):
                    break
        return None

    async def _send(self, reply: VarlinkMethodReply) -> bool:
        """Returns when the kernel has taken it all: True, or False if the client is gone."""
        sent = self.send_message(reply.tojson())
        sent.add_done_callback(_look_at)
        # Not awaited itself: asyncvarlink does not expect its future to be cancelled.
        await asyncio.wait((sent,))
        return sent.exception() is None


def _reply(signature: VarlinkMethodSignature, result: AnnotatedResult) -> VarlinkMethodReply:
    parameters = signature.return_type.tojson(dict(result.parameters))
    return VarlinkMethodReply(parameters, continues=result.continues)


def _look_at(sent: asyncio.Future[None]) -> None:
    """asyncio complains of failures that nobody looked at; here they mean that the client left."""
    if not sent.cancelled():
        sent.exception()
