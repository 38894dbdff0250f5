"""The varlink interface org.cleanroomd.Control: its methods, its errors, and the check before each of them.

An instance serves one connection.
"""

import asyncio
import difflib
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TypeVar, cast

from asyncvarlink import LastResult, TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod
from asyncvarlink.serviceinterface import InvalidParameter

from cleanroomd.control.access import Peer, Verb, may, who_may
from cleanroomd.control.credentials import user_name
from cleanroomd.control.enclosure import Enclosure
from cleanroomd.control.newest import newest
from cleanroomd.control.wire import NAME, JournalEntry, mirror, to_wire
from cleanroomd.errors import CleanroomError
from cleanroomd.model.lesson import Lesson
from cleanroomd.model.status import Status
from cleanroomd.model.verification import IsolationView, Verification

_LONGEST_NAME = 64
"""Longer than any service is called; nothing is compared with a longer one."""

_MAYBE_ENTRY = cast("type[JournalEntry]", JournalEntry | None)
"""asyncvarlink takes unions too; its annotation says otherwise."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class NoSuchService(TypedVarlinkErrorReply, interface=NAME):
    """The plan has no service of this name."""

    class Parameters:
        name: str
        hint: str


class NotAllowed(TypedVarlinkErrorReply, interface=NAME):
    """The caller may not do this; `needs` says who may, in words."""

    class Parameters:
        needs: str


class Cannot(TypedVarlinkErrorReply, interface=NAME):
    """It could not be done: `message` reads "cannot DO: CAUSE", `hint` is what to do next, or empty."""

    class Parameters:
        message: str
        hint: str


class NoCall(TypedVarlinkErrorReply, interface=NAME):
    """The message was no varlink call, for this reason."""

    class Parameters:
        reason: str


class Fault(TypedVarlinkErrorReply, interface=NAME):
    """The daemon failed at this call, by a fault of its own; its journal says how."""

    class Parameters:
        pass


class ControlInterface(VarlinkInterface, name=NAME):
    """The local control of a recovery enclosure.

    Requests are answered with a sentence as soon as they are recorded; watch the status for what becomes of
    them. Instants are CLOCK_BOOTTIME seconds, data_as_of and the times of journal entries are Unix time.
    """

    errors = (NoSuchService, NotAllowed, Cannot, NoCall, Fault)

    def __init__(self, enclosure: Enclosure, peer: Peer) -> None:
        self._enclosure = enclosure
        self._peer = peer

    @varlinkmethod(return_parameter="status", return_type=mirror(Status))
    def GetStatus(self) -> Status:  # noqa: N802
        """What works, what does not yet and why, and what to do next."""
        self._check(Verb.STATUS)
        return to_wire(self._enclosure.status())  # type: ignore[no-any-return]

    @varlinkmethod(return_parameter="status", return_type=mirror(Status), delay_generator=False)
    async def WatchStatus(self) -> AsyncIterator[Status]:  # noqa: N802
        """The status at once and again at every change; a slow reader gets the newest, not each."""
        self._check(Verb.STATUS)
        async for status in newest(self._enclosure.subscribe()):
            yield to_wire(status)
        raise LastResult(to_wire(self._enclosure.status()))

    @varlinkmethod(return_parameter="request")
    async def Start(self, *, service: str) -> str:  # noqa: N802
        """Starts a service, after what it depends on."""
        self._check(Verb.START)
        self._known(service)
        return await self._asked(f"start {service}", self._enclosure.start(service))

    @varlinkmethod(return_parameter="request")
    async def Stop(self, *, service: str) -> str:  # noqa: N802
        """Stops a service, after what depends on it."""
        self._check(Verb.STOP)
        self._known(service)
        return await self._asked(f"stop {service}", self._enclosure.stop(service))

    @varlinkmethod(return_parameter="request")
    async def Restore(self) -> str:  # noqa: N802
        """Starts every service of the plan, in the order of their priority."""
        self._check(Verb.RESTORE)
        return await self._asked("restore", self._enclosure.restore())

    @varlinkmethod(return_parameter="request")
    async def Shutdown(self) -> str:  # noqa: N802
        """Stops every machine, in reverse order."""
        self._check(Verb.SHUTDOWN)
        return await self._asked("shut down", self._enclosure.shutdown())

    @varlinkmethod(return_parameter="request")
    async def OpenUplink(self, *, window: str, seconds: float, reason: str) -> str:  # noqa: N802
        """Opens a window of the plan towards the hospital's network for so many seconds; it closes by itself.

        The reason and the caller's user name go into the journal.
        """
        self._check(Verb.UPLINK)
        author = await self._author()
        request = self._enclosure.open_uplink(window, seconds, reason, author)
        return await self._asked("open the uplink", request)

    @varlinkmethod(return_parameter="request")
    async def CloseUplink(self, *, window: str | None = None) -> str:  # noqa: N802
        """Closes one window, or whatever is open."""
        self._check(Verb.UPLINK)
        author = await self._author()
        return await self._asked("close the uplink", self._enclosure.close_uplink(window, author))

    @varlinkmethod(return_parameter="isolation", return_type=mirror(IsolationView))
    def GetIsolation(self) -> IsolationView:  # noqa: N802
        """Who may talk to whom at this moment, and what was denied."""
        self._check(Verb.ISOLATION)
        return to_wire(self._enclosure.isolation())  # type: ignore[no-any-return]

    @varlinkmethod(return_parameter="verification", return_type=mirror(Verification))
    async def VerifyIsolation(self) -> Verification:  # noqa: N802
        """Compares the live kernel with the plan, and tries its rules packet by packet in a twin.

        It takes about a second. The error Cannot means that nothing is proven.
        """
        self._check(Verb.VERIFY)
        return to_wire(await self._asked("verify the isolation", self._enclosure.verify_isolation()))  # type: ignore[no-any-return]

    @varlinkmethod(return_parameter="lesson", return_type=mirror(Lesson))
    def LearnFlows(self) -> Lesson:  # noqa: N802
        """What was denied lately, as flows that the plan could have; nothing of it is applied.

        For staging: the error Cannot where the plan and the vault are signed.
        """
        self._check(Verb.ISOLATION)
        try:
            return to_wire(self._enclosure.learn())  # type: ignore[no-any-return]
        except CleanroomError as error:
            raise Cannot(message=error.message, hint=error.hint) from error

    @varlinkmethod(return_parameter="entry", return_type=_MAYBE_ENTRY, delay_generator=False)
    async def ReadJournal(  # noqa: N802
        self, *, follow: bool, last: int | None = None, service: str | None = None
    ) -> AsyncIterator[JournalEntry | None]:
        """The entries of the run journal; the last reply has none. With follow it waits for more.

        With service only those about it; with last at most so many of those that are there already, 0 for none.
        """
        self._check(Verb.JOURNAL)
        if last is not None and last not in range(sys.maxsize):
            raise InvalidParameter(parameter="last")
        if service is not None:
            self._known(service)
        async for entry in self._enclosure.journal(follow=follow, last=last, service=service or ""):
            yield journal_entry(entry)
        raise LastResult(None)

    def _check(self, verb: Verb) -> None:
        if may(self._peer, verb):
            return
        _log.warning("refused to %s: uid %d (pid %d)", verb, self._peer.uid, self._peer.pid)
        raise NotAllowed(needs=who_may(verb))

    async def _author(self) -> str:
        return await asyncio.to_thread(user_name, self._peer.uid)

    def _known(self, untrusted_service: str) -> None:
        names = [service.name for service in self._enclosure.status().services]
        if untrusted_service in names:
            return
        hint = f"the services are {', '.join(names)}"
        if len(untrusted_service) <= _LONGEST_NAME:
            for name in difflib.get_close_matches(untrusted_service, names, n=1):
                hint = f"did you mean {name}?"
        raise NoSuchService(name=untrusted_service[:_LONGEST_NAME], hint=hint)

    async def _asked(self, what: str, request: Awaitable[T]) -> T:
        _log.info("asked to %s by uid %d (pid %d)", what, self._peer.uid, self._peer.pid)
        try:
            return await request
        except CleanroomError as error:
            _log.info("not granted: %s", error.message)
            raise Cannot(message=error.message, hint=error.hint) from error


def journal_entry(entry: Mapping[str, object]) -> JournalEntry:
    """An entry of the daemon's journal as it crosses the socket: whatever it holds, as text."""
    named = {"time", "text", "event", "service"}
    time = entry.get("time")
    return JournalEntry(
        time=float(time) if isinstance(time, int | float) else 0.0,
        text=_text(entry.get("text")),
        event=_text(entry.get("event")),
        service=_text(entry.get("service")),
        fields={key: _text(value) for key, value in entry.items() if key not in named},
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)
