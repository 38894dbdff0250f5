"""The PostgreSQL probe and the server of Debian's `postgresql` package."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroomd.model.plan import PostgresProbe

from .conftest import LOOPBACK, Answers, Running, Watch

pytestmark = pytest.mark.timeout(120)

PROBE = PostgresProbe(port=5432, user="record", database="health")


def binaries() -> Path:
    """The directory of the newest PostgreSQL installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@pytest.fixture
def cluster(running: Running, directory: Path) -> Path:
    """A new cluster's data directory."""
    data = directory / "data"
    with running([binaries() / "initdb", "--no-sync", "--auth=trust", "--username=postgres", data]) as process:
        assert process.wait() == 0, (directory / "server.log").read_text()
    return data


@pytest.fixture
def serve(running: Running, cluster: Path, directory: Path) -> "Serve":
    return Serve(running, cluster, directory)


class Serve:
    """Starts the server with one line of pg_hba.conf and settings of a test's own."""

    def __init__(self, running: Running, cluster: Path, directory: Path) -> None:
        self._running = running
        self._cluster = cluster
        self._directory = directory

    @contextmanager
    def __call__(self, access: str, settings: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
        (self._cluster / "pg_hba.conf").write_text(f"host all all {LOOPBACK}/32 {access}\n")
        options = [
            f"unix_socket_directories={self._directory}",
            f"listen_addresses={LOOPBACK}",
            "fsync=off",
            *settings,
        ]
        command = [binaries() / "postgres", "-D", self._cluster]
        command += [argument for option in options for argument in ("-c", option)]
        with self._running(command) as process:
            yield process
            process.send_signal(signal.SIGINT)
            process.wait()

    def log(self) -> str:
        return (self._directory / "server.log").read_text()


@pytest.fixture
async def answers(watch: Watch) -> Answers:
    return watch(PROBE)


async def test_a_server_that_starts_becomes_ready(serve: Serve, answers: Answers) -> None:
    for access in ("trust", "scram-sha-256", "md5", "reject"):
        assert not (await answers.until("connection refused")).ok
        with serve(access):
            assert (await answers.until("PostgreSQL answered")).ok
    assert not (await answers.until("connection refused")).ok


async def test_a_server_in_recovery_is_not_ready(serve: Serve, answers: Answers, cluster: Path) -> None:
    """A standby without hot standby listens and refuses with 57P03, for as long as it recovers."""
    (cluster / "standby.signal").touch()
    with serve("trust", ["hot_standby=off"]):
        assert not (await answers.until("the database system is ")).ok
    (cluster / "standby.signal").unlink()
    with serve("trust"):
        assert (await answers.until("PostgreSQL answered")).ok


async def test_the_probe_leaves_no_error_in_the_servers_log(serve: Serve, answers: Answers) -> None:
    with serve("scram-sha-256", ["log_min_messages=info"]):
        for _ in range(5):
            await answers.until("PostgreSQL answered")
    log = serve.log()
    assert "database system is ready" in log
    assert "FATAL" not in log.split("database system is ready")[1].split("shutdown request")[0]
