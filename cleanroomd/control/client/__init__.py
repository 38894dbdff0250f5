"""The control socket from the other end; knows the model and the interface, nothing of the daemon.

`once` asks for the status and ends, without asyncio; `Client` does everything.
"""

from typing import TYPE_CHECKING

from cleanroomd.control.wire import JournalEntry

if TYPE_CHECKING:
    from cleanroomd.control.client.client import Client

__all__ = ["Client", "JournalEntry"]


def __getattr__(name: str) -> object:
    """Imports Client, and with it asyncio, for those who use it; `cleanroomctl status` does not."""
    if name == "Client":
        from cleanroomd.control.client.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
