"""What the control socket needs of the daemon; the engine implements it."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from cleanroomd.model.lesson import Lesson
from cleanroomd.model.status import Status
from cleanroomd.model.verification import IsolationView, Verification


class Enclosure(Protocol):
    """Requests return as soon as they are recorded, with a sentence that says what was asked for.

    What becomes of them shows in the status. They raise CleanroomError when they cannot be granted.
    """

    def status(self) -> Status: ...

    def subscribe(self) -> AsyncIterator[Status]:
        """The current status at once, then every later one."""
        ...

    async def start(self, service: str) -> str: ...

    async def stop(self, service: str) -> str:
        """Stops what depends on it first."""
        ...

    async def restore(self) -> str: ...

    async def shutdown(self) -> str:
        """Stops all machines, in reverse order."""
        ...

    async def open_uplink(self, window: str, seconds: float, reason: str, author: str) -> str:
        """Opens a window of the plan for so many seconds; it closes by itself."""
        ...

    async def close_uplink(self, window: str | None, author: str) -> str:
        """Closes one window, or whatever is open."""
        ...

    def isolation(self) -> IsolationView:
        """Who may talk to whom at this moment, and what was denied."""
        ...

    async def verify_isolation(self) -> Verification:
        """The live kernel against the plan, packet by packet; takes about a second."""
        ...

    def learn(self) -> Lesson:
        """What was denied, as flows that a plan could have; only where nothing is signed."""
        ...

    def journal(
        self, *, follow: bool, last: int | None = None, service: str = ""
    ) -> AsyncIterator[Mapping[str, object]]:
        """The run journal from its beginning; with `follow` it goes on as entries are written.

        With `service` only the entries about that service; with `last` at most so many of those that are there already.
        The keys `time` (Unix time), `event`, `service` and `text` have their meaning here, all others
        are fields of the entry. An entry is asked for only when the one before has been sent.
        """
        ...
