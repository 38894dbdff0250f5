"""A container leaves nothing on the machine that it ran on, however it ended."""

import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from cleanroomd.errors import CleanroomError
from rigs.nspawn import container
from tests.appliance.enclosure import FILES

pytestmark = pytest.mark.timeout(400)

_CONTROL_GROUPS = (
    "[ -d /sys/fs/cgroup ] || mount -t sysfs sysfs /sys; mount -t cgroup2 cgroup2 /sys/fs/cgroup; "
    "find /sys/fs/cgroup -type d -name 'cleanroom-*'"
)


@dataclass(frozen=True)
class Traces:
    """What a container could leave behind."""

    mounts: frozenset[str]
    control_groups: str
    temporary: frozenset[str]
    run: frozenset[str]
    sockets: frozenset[str]
    processes: frozenset[int]

    @classmethod
    def now(cls) -> "Traces":
        groups = subprocess.run(
            ["unshare", "--mount", "--", "sh", "-ec", _CONTROL_GROUPS], capture_output=True, text=True, check=True
        )
        sockets = Path("/proc/net/unix").read_text().split()
        return cls(
            mounts=frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            control_groups=groups.stdout,
            temporary=frozenset(
                path.name
                for path in Path(tempfile.gettempdir()).iterdir()
                if "nspawn" in path.name or "-layer-" in path.name
            ),
            run=frozenset(_listing("/run/systemd/nspawn")),
            sockets=frozenset(word for word in sockets if word.startswith("@cleanroom-")),
            processes=frozenset(_descendants(os.getpid())),
        )


def _listing(folder: str) -> list[str]:
    return [str(path) for path in Path(folder).rglob("*")]


def _descendants(pid: int) -> list[int]:
    """Also those of another PID namespace, which are numbered here too."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [pid_below for child in children for pid_below in (child, *_descendants(child))]


def test_a_container_that_powers_off_leaves_nothing(system: Path) -> None:
    before = Traces.now()
    with tempfile.TemporaryFile() as log, container.booted(system, files=FILES, log=log) as made:
        leader = os.pidfd_open(made.leader)
        assert Traces.now() != before
    assert Traces.now() == before
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(leader, 0)
    os.close(leader)


def test_a_container_whose_plug_is_pulled_leaves_nothing(system: Path) -> None:
    before = Traces.now()
    with tempfile.TemporaryFile() as log, container.booted(system, files=FILES, log=log) as made:
        os.kill(made.leader, signal.SIGKILL)
    assert Traces.now() == before


def test_a_container_that_cannot_boot_says_so_and_leaves_nothing(system: Path) -> None:
    before = Traces.now()
    broken = {**FILES, "etc/os-release": "", "usr/lib/os-release": ""}
    with (
        tempfile.TemporaryFile() as log,
        pytest.raises(CleanroomError, match="cannot boot the container"),
        container.booted(system / "nowhere", files=broken, log=log),
    ):
        pytest.fail("it booted")
    assert Traces.now() == before


def test_the_root_in_the_cache_stays_as_it_was_built(system: Path) -> None:
    before = _newest(system)
    with tempfile.TemporaryFile() as log, container.booted(system, files=FILES, log=log) as made:
        made.run("sh", "-c", "echo changed >/etc/motd; rm -r /usr/share/python3")
        assert made.run("test", "-e", "/usr/share/python3").returncode == 1
    assert _newest(system) == before


def _newest(system: Path) -> tuple[int, int]:
    """How many files there are, and the latest change of status of any."""
    stats = [path.lstat() for path in system.rglob("*")]
    return len(stats), max(stat.st_ctime_ns for stat in stats)
