"""The errors that people read.

Every message completes "cannot ...": it says what could not be done and why, and the hint says what to do next.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line, one meaning each."""

    DONE = 0
    """It was done, or there was nothing to do."""
    CANNOT = 1
    """It could not be done; the message says why, and what to do next."""
    USAGE = 2
    """The command line is wrong: an unknown verb or option, a missing or impossible value."""
    DEGRADED = 3
    """Every required service is ready or would be, and another one is not."""


class CleanroomError(Exception):
    """Something that could not be done; `message` reads "cannot DO-THIS: CAUSE", `hint` is one next action."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class IsolationError(CleanroomError):
    """The rules are not in force as planned, or cannot be proven to be: nothing may start, nothing may open."""


class MachineError(CleanroomError):
    """One machine could not be launched, reached or stopped; the other machines are unaffected."""


class VaultError(CleanroomError):
    """A disk is missing from the vault, or is not what the vault may hold; its service cannot start."""


class ControlError(CleanroomError):
    """A call over the control socket was refused or could not be made."""
