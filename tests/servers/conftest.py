"""Real servers of Debian packages, each in a network namespace of its own with nothing but loopback."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

LOOPBACK = "127.0.0.1"
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
    """Run a server in the namespace as the servers' account, killed at the end of the block."""
    become = (
        ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"] if os.geteuid() == 0 else []
    )

    @contextmanager
    def run(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
        with (directory / "server.log").open("ab") as log:
            process = subprocess.Popen([*enter, *become, *map(str, command)], cwd=directory, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    return run
