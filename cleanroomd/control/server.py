"""Serves the control interface on a Unix socket."""

import asyncio
import errno
import logging
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from asyncvarlink import VarlinkInterfaceRegistry, VarlinkTransport
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from cleanroomd import __version__
from cleanroomd.control.access import has_place
from cleanroomd.control.connection import Connection
from cleanroomd.control.credentials import Credentials
from cleanroomd.control.enclosure import Enclosure
from cleanroomd.control.interface import ControlInterface
from cleanroomd.control.listener import listening

_SEND_BUFFER = 32 * 1024
"""Bytes of replies that the kernel keeps for a client that does not read: few, so that what a slow watcher
reads at last is not an old status."""

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


class ControlServer:
    """Answers while it is entered; leaving it disconnects every client and removes the socket."""

    def __init__(self, enclosure: Enclosure, path: Path, *, credentials: Credentials | None = None) -> None:
        """`credentials` stands in for the groups of this system in tests."""
        self._enclosure = enclosure
        self._path = path
        self._credentials = credentials
        self._connected: dict[Connection, int] = {}
        self._resources = ExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """Answers until cancelled; ControlError if the socket cannot be had."""
        async with self:
            await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        if self._credentials is None:
            self._credentials = Credentials.of_this_system()
        listener = self._resources.enter_context(listening(self._path))
        self._tasks.append(asyncio.create_task(self._accept(listener, self._credentials)))
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._resources:
            while self._tasks:
                task = self._tasks.pop()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.gather(*(connection.end() for connection in list(self._connected)))

    async def _accept(self, listener: socket.socket, credentials: Credentials) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                _log.error("cannot accept a control connection: %s", error.strerror)
                # Nothing tells when a descriptor is free again, and the listener stays readable meanwhile.
                await asyncio.sleep(1.0)
                continue
            self._welcome(client, credentials)

    def _welcome(self, client: socket.socket, credentials: Credentials) -> None:
        try:
            peer = credentials.read(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        except OSError as error:
            _log.warning("cannot tell who connected: %s", error.strerror)
            client.close()
            return
        if not has_place(Counter(self._connected.values()), peer):
            _log.warning("no place for another client of uid %d (pid %d)", peer.uid, peer.pid)
            client.close()
            return
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(ControlInterface(self._enclosure, peer))
        registry.register_interface(VarlinkServiceInterface("cleanroomd", "cleanroomd", __version__, "", registry))
        connection = Connection(registry, left=self._left)
        self._connected[connection] = peer.uid
        # Without a predictor one read is made for each readiness; with it a client that keeps writing would
        # keep the loop. The predictor exists to match descriptors with messages, and none are taken.
        VarlinkTransport(asyncio.get_running_loop(), client, client, connection, boundary_predictor=None)

    def _left(self, connection: Connection) -> None:
        self._connected.pop(connection, None)
