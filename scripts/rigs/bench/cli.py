"""`cleanroomctl status` against `virsh list`, and the daemon's memory against libvirtd's, with ten machines each."""

import shutil
from collections.abc import Iterator

from cleanroomd.errors import CleanroomError
from rigs import tiny
from rigs.bench.figures import Figure, Spread
from rigs.bench.sandboxed import enclosure_root, measure
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
    services = (_SERVICE.format(name=guest.name, address=guest.address) for guest in guests)
    with enclosure_root(_HEAD + "".join(services), disks) as root:
        found = measure("rigs.bench.cli_inside", root)
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
