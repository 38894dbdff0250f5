"""The control socket from the other end; knows the model and the interface, nothing of the daemon."""

from cleanroomd.control.client.client import Client
from cleanroomd.control.wire import JournalEntry

__all__ = ["Client", "JournalEntry"]
