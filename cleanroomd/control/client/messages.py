"""A call and its replies as bytes, and as the words that people read; pure, for whichever transport carries them.

Varlink messages are JSON objects, each ended by a NUL byte (varlink.org, "Method Call").
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from cleanroomd.control.wire import NAME, JournalEntry, from_json
from cleanroomd.errors import ControlError
from cleanroomd.model.lesson import Lesson
from cleanroomd.model.status import Status
from cleanroomd.model.verification import IsolationView, Verification

StrPath = str | PathLike[str]

END = b"\0"

REPLY_LIMIT = 4 * 1024 * 1024
"""Bytes of one reply; a status has about 400 for each service."""

PATIENCE = 10.0
"""Seconds until a daemon that does not answer is said not to. Streams have it for their first reply only."""

_RETURNS: Mapping[str, tuple[str, Any]] = {
    "GetStatus": ("status", Status),
    "WatchStatus": ("status", Status),
    "ReadJournal": ("entry", JournalEntry | None),
    "GetIsolation": ("isolation", IsolationView),
    "LearnFlows": ("lesson", Lesson),
    "VerifyIsolation": ("verification", Verification),
}
"""The one parameter of each reply and its type; those that are not named return `request`, a sentence."""


def encode_call(method: str, parameters: Mapping[str, object], *, more: bool) -> bytes:
    """`more` asks for a stream of replies."""
    call: dict[str, object] = {"method": f"{NAME}.{method}"}
    if parameters:
        call["parameters"] = parameters
    if more:
        call["more"] = True
    return json.dumps(call).encode() + END


def decode_reply(deed: str, method: str, untrusted_message: bytes) -> tuple[Any, bool]:
    """What a reply to `method` brings, and whether another follows; the message is without its END.

    ControlError when it is a refusal of `deed` ("start imaging"), ValueError when it is no reply.
    """
    untrusted_reply = _object(json.loads(untrusted_message))
    parameters = _object(untrusted_reply.get("parameters", {}))
    error = from_json(str | None, untrusted_reply.get("error"))
    if error is not None:
        raise _refusal(deed, error, parameters)
    name, kind = _RETURNS.get(method, ("request", str))
    if unknown := parameters.keys() - {name}:
        raise ValueError(f"{method} does not return {min(unknown)}")
    return from_json(kind, parameters.get(name)), from_json(bool, untrusted_reply.get("continues", False))


def _object(untrusted: object) -> dict[str, object]:
    if not isinstance(untrusted, dict):
        raise ValueError("no JSON object")
    return untrusted


@contextmanager
def explained(deed: str, path: StrPath) -> Iterator[None]:
    """Every way in which a call can fail, as a ControlError; EOFError stands for a closed connection."""
    try:
        yield
    except TimeoutError as error:
        raise ControlError(
            "cannot reach cleanroomd: it does not answer", "look at its journal: journalctl -u cleanroomd"
        ) from error
    except (EOFError, ConnectionResetError, BrokenPipeError) as error:
        raise ControlError(
            "cannot reach cleanroomd: it closed the connection",
            "it may be restarting, or have too many clients; try again in some seconds",
        ) from error
    except OSError as error:
        cause = "nothing answers" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else error.strerror
        advice = (
            "use sudo"
            if isinstance(error, PermissionError)
            else "`systemctl status cleanroomd` says whether it runs; --socket or CLEANROOM_CONTROL name another socket"
        )
        raise ControlError(f"cannot reach cleanroomd: {cause or error} on {fspath(path)}", advice) from error
    except (ValueError, RecursionError) as error:
        raise ControlError(
            f"cannot {deed}: what cleanroomd answered is not understood",
            "use the cleanroomctl that was installed with it",
        ) from error


def _refusal(deed: str, error: str, parameters: dict[str, object]) -> ControlError:
    def told(name: str) -> str:
        text: str = from_json(str, parameters.get(name))
        return text

    match error.removeprefix(f"{NAME}."):
        case "NoSuchService":
            return ControlError(f"cannot {deed}: the plan has no such service", told("hint"))
        case "NotAllowed":
            return ControlError(f"cannot {deed}: only {told('needs')} may", "use sudo, or ask to be made a member")
        case "Cannot":
            return ControlError(told("message"), told("hint"))
        case "Fault":
            return ControlError(
                f"cannot {deed}: cleanroomd failed at it", "its journal says how: journalctl -u cleanroomd"
            )
    return ControlError(
        f"cannot {deed}: cleanroomd answered {error}", "use the cleanroomctl that was installed with it"
    )
