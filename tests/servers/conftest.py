"""Real servers of Debian packages, each in a network namespace of its own with nothing but loopback."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cleanroomd.model.observed import ProbeFacts
from cleanroomd.model.plan import Probe
from cleanroomd.probes.runner import ProbeRunner, child_command
from cleanroomd.probes.spec import Pace

LOOPBACK = "127.0.0.1"
PACE = Pace(interval=0.05, steady_interval=0.05)
Running = Callable[[Sequence[str | Path]], AbstractContextManager[subprocess.Popen[bytes]]]


@dataclass(frozen=True, slots=True)
class Account:
    """Who the servers run as: an ordinary user, since PostgreSQL refuses user 0."""

    uid: int
    gid: int


@pytest.fixture(scope="session")
def account() -> Account:
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


@pytest.fixture
def directory(account: Account) -> Iterator[Path]:
    """A short path (for Unix sockets) that belongs to the servers' account."""
    path = Path(tempfile.mkdtemp(prefix="server-"))
    os.chown(path, account.uid, account.gid)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def enter() -> Iterator[list[str]]:
    """The command prefix that runs something in a fresh network namespace, where only loopback is up."""
    root = os.geteuid() == 0
    user = [] if root else ["--user", "--map-current-user", "--keep-caps"]
    with subprocess.Popen(
        ["unshare", *user, "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        join = ["nsenter", f"--target={holder.pid}", "--net"]
        yield join if root else [*join, "--user", "--preserve-credentials"]
        holder.stdin.close()


@pytest.fixture
def running(enter: list[str], account: Account, directory: Path) -> Running:
    """Run a server in the namespace as the servers' account, killed with its children at the end of the block."""
    become = (
        ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"] if os.geteuid() == 0 else []
    )

    @contextmanager
    def run(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
        with (directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [*enter, *become, *map(str, command)], cwd=directory, stdout=log, stderr=log, process_group=0
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return run


class Answers:
    """The stream of answers of one watch."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[ProbeFacts] = asyncio.Queue()

    def __call__(self, _: str, facts: ProbeFacts) -> None:
        self._queue.put_nowait(facts)

    async def until(self, detail: str) -> ProbeFacts:
        """The next answer with `detail` in it."""
        while True:
            facts = await self._queue.get()
            if detail in facts.detail:
                return facts


Watch = Callable[..., Answers]


@pytest.fixture
async def watch(enter: list[str]) -> AsyncIterator[Watch]:
    """Start a real child in the servers' namespace that attempts the given probes; returns what it says."""
    runner = ProbeRunner(command=[*enter, *child_command()], pace=PACE)

    def start(*probes: Probe, agent: Path | None = None) -> Answers:
        answers = Answers()
        runner.watch(f"watch {len(runner.watched())}", probes, LOOPBACK, answers, agent=agent)
        return answers

    yield start
    await runner.close()
