"""Verifying in a process of its own: it takes a while, works in another network namespace, and may crash alone.

`python -m cleanroomd.isolation.apart` is the other process. It reads a pickled Request from standard input and answers
with a pickled Verification or refusal: both ends are this module, of one installation, run by one user.
"""

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cleanroomd
from cleanroomd.errors import CleanroomError, IsolationError
from cleanroomd.model.posture import Posture
from cleanroomd.model.verification import Verification

DEADLINE = 60.0
"""Seconds; 10,000 flows take about one."""
_NICENESS = 5
"""Machines and the daemon come first."""
_HINT = "nothing is known to be wrong, and nothing is proven: try again, and look at the journal"


@dataclass(frozen=True, slots=True)
class Request:
    posture: Posture
    owner: int | None
    """Netlink port of the socket that owns the tables."""
    names: Mapping[str, str]
    """Network in CIDR notation -> name of the zone."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A CleanroomError on its way; exceptions do not survive pickling."""

    message: str
    hint: str


Answer = Verification | _Refused


async def verify_apart(
    request: Request, *, command: Sequence[str] | None = None, deadline: float = DEADLINE
) -> Verification:
    """What `verify.verify` finds in this process's network namespace.

    IsolationError, which means that nothing is proven, if it cannot verify, crashes, or takes longer than `deadline`
    seconds. A caller that is cancelled leaves no process behind.
    """
    argv = tuple(command or (sys.executable, "-P", "-s", "-m", "cleanroomd.isolation.apart"))
    environment = {"PYTHONPATH": str(Path(cleanroomd.__file__).parents[1]), "LC_ALL": "C.UTF-8"}
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, env=environment)
    except OSError as error:
        raise _cannot(error.strerror or str(error)) from error
    try:
        async with asyncio.timeout(deadline):
            said, _ = await child.communicate(pickle.dumps(request))
    except TimeoutError:
        raise _cannot(f"it took longer than {deadline:.0f} s") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        raise _cannot(f"the process that verifies {_ended(child.returncode or 0)}")
    answered: Answer = pickle.loads(said)  # noqa: S301 - see above
    if isinstance(answered, _Refused):
        raise IsolationError(answered.message, answered.hint)
    return answered


def answer(request: Request) -> Answer:
    """What the other process answers with."""
    from cleanroomd.isolation.verify import verify

    try:
        return verify(request.posture, owner=request.owner, names=request.names)
    except CleanroomError as error:
        return _Refused(error.message, error.hint)


def _cannot(cause: str) -> IsolationError:
    return IsolationError(f"cannot verify: {cause}", _HINT)


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def main() -> None:
    os.nice(_NICENESS)
    # Pickled under the module's own name, not __main__'s.
    from cleanroomd.isolation import apart

    request: Request = pickle.load(sys.stdin.buffer)  # noqa: S301 - see above
    sys.stdout.buffer.write(pickle.dumps(apart.answer(request)))


if __name__ == "__main__":
    main()
