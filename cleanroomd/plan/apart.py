"""Reading a plan in a process of its own.

pydantic takes 12 MB and is needed for a moment; the daemon runs for weeks and has to fit beside the machines. What
a plan of the largest size needs while it is read goes the same way, and so does a parser that crashes.

`python -m cleanroomd.plan.apart FILE` is the other process. Its answer is pickled: both ends are this module, of
one installation, run by one user.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cleanroomd
from cleanroomd.errors import CleanroomError
from cleanroomd.model.plan import Plan
from cleanroomd.plan.problems import PlanError, Problem


@dataclass(frozen=True, slots=True)
class _Refused:
    """A PlanError on its way; exceptions do not survive pickling."""

    source: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Unread:
    """A CleanroomError on its way."""

    message: str
    hint: str


Answer = Plan | _Refused | _Unread


def load_apart(file: Path, *, command: Sequence[str] | None = None) -> Plan:
    """As `cleanroomd.plan.load.load`, and CleanroomError when the other process cannot be run or fails."""
    argv = [*(command or (sys.executable, "-P", "-s", "-m", "cleanroomd.plan.apart")), str(file)]
    environment = {"PYTHONPATH": str(Path(cleanroomd.__file__).parents[1]), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, check=False)
    except (OSError, ValueError) as error:
        # ValueError: a path with a NUL character.
        raise _failed(file, getattr(error, "strerror", None) or str(error)) from error
    if done.returncode != 0:
        raise _failed(file, f"the process that reads it {_ended(done.returncode)}")
    answered: Answer = pickle.loads(done.stdout)  # noqa: S301 - see above
    match answered:
        case _Refused(source, problems):
            raise PlanError(source, problems)
        case _Unread(message, hint):
            raise CleanroomError(message, hint)
    return answered


def answer(file: Path) -> Answer:
    """What the other process answers with."""
    from cleanroomd.plan.load import load

    try:
        return load(file)
    except PlanError as error:
        return _Refused(error.source, error.problems)
    except CleanroomError as error:
        return _Unread(error.message, error.hint)


def _failed(file: Path, cause: str) -> CleanroomError:
    source = os.fsencode(file).decode(errors="replace")
    return CleanroomError(
        f"cannot read the plan {source}: {cause}", f"try `cleanroomctl plan check {source}`; is memory short?"
    )


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


if __name__ == "__main__":
    # Pickled under the module's own name, not __main__'s.
    from cleanroomd.plan import apart

    sys.stdout.buffer.write(pickle.dumps(apart.answer(Path(sys.argv[1]))))
