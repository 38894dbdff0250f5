"""`cleanroomctl status` against `virsh list`, and the daemon's memory against libvirtd's, with ten machines each."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cleanroomd.errors import CleanroomError
from rigs import namespaces, tiny
from rigs.bench.figures import Figure, Spread
from rigs.place import default_cache

MACHINES = 10
GOAL_TIMES = 3.0
GOAL_RSS_MB = 60.0

_HEAD = """
[enclosure]
name = "Bench"
[ports.care]
match = { mac = "52:54:00:00:00:02" }
[zones.workstations]
port = "care"
address = "10.77.0.1/24"
"""
_SERVICE = """
[[service]]
name = "{name}"
title = "Bench"
priority = 1
address = "{address}"
gateway = "10.1.20.1"
memory = "128M"
disks = ["{name}-system"]
ready = [{{ http = "http://:80/", expect = 200 }}]
"""


def run() -> Iterator[Figure]:
    for tool in ("libvirtd", "virsh"):
        if shutil.which(tool) is None:
            raise CleanroomError(
                f"cannot compare with libvirt: there is no {tool}",
                "apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients",
            )
    guests = [
        tiny.Guest(name=f"bench{number}", address=f"10.1.20.{100 + number}", gateway="10.1.20.1")
        for number in range(MACHINES)
    ]
    disks = tiny.build(guests, default_cache(), lambda _text: None)
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        root = Path(name)
        (root / "vault").mkdir()
        (root / "logs").mkdir()
        for disk, image in disks.items():
            (root / f"vault/{disk}.qcow2").symlink_to(image)
        services = (_SERVICE.format(name=guest.name, address=guest.address) for guest in guests)
        (root / "plan.toml").write_text(_HEAD + "".join(services), encoding="utf-8")
        found = _measure(root)
    runs = len(found["status"])
    status, virsh = Spread.of(found["status"]), Spread.of(found["virsh"])
    yield Figure(
        name="cli_status",
        unit="s",
        spread=status,
        runs=runs,
        against="virsh list",
        against_value=virsh.median,
        goal=GOAL_TIMES,
    )
    ours, theirs = Spread.of(found["daemon"]), Spread.of(found["libvirtd"])
    yield Figure(name="cli_daemon_rss_10_machines", unit="MB", spread=ours, runs=len(found["daemon"]), goal=GOAL_RSS_MB)
    yield Figure(
        name="cli_daemon_rss_against_libvirtd",
        unit="MB",
        spread=ours,
        runs=len(found["daemon"]),
        against="libvirtd",
        against_value=theirs.median,
    )


def _measure(root: Path) -> dict[str, list[float]]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "rigs.bench.cli_inside", str(write_end), str(root)]
    log = root / "logs/inside.log"
    with os.fdopen(read_end) as said, namespaces.sandbox(argv, log=log, pass_fds=(write_end,)):
        os.close(write_end)
        line = said.readline()
    if not line:
        raise CleanroomError("cannot measure the command line: the sandbox ended early", log.read_text()[-2000:])
    found: dict[str, list[float]] = json.loads(line)
    return found
