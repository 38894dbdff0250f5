"""What the control socket needs of the daemon; the engine implements it."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from cleanroomd.model.status import Status


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

    def journal(
        self, *, follow: bool, last: int | None = None, service: str = ""
    ) -> AsyncIterator[Mapping[str, object]]:
        """The run journal from its beginning; with `follow` it goes on as entries are written.

        With `service` only the entries about that service; with `last` at most so many of those that are there already.
        The keys `time` (Unix time), `event`, `service` and `text` have their meaning here, all others
        are fields of the entry. An entry is asked for only when the one before has been sent.
        """
        ...
