"""The small enclosure of these tests: the real units, a plan whose disks nobody staged, and what tests ask of it."""

import json
import time
from collections.abc import Callable
from typing import Any

from rigs.nspawn.container import Container

DAEMON = "cleanroomd.service"
KEEPER = "cleanroom-keeper.service"
CONTROL = "/run/cleanroom/control"
INTERFACE = "org.cleanroomd.Control"
PLAN = "var/lib/cleanroom/plan.toml"

WATCHDOG = 5
"""Seconds, in the place of the unit's thirty: tests wait for it."""
PATIENCE = 60.0

FILES = {
    PLAN: """
[enclosure]
name = "Caisson d'essai"
language = "fr"
rto = "2m"

[ports.care]
match = { mac = "52:54:00:00:00:02" }

[zones.workstations]
port = "care"
address = "10.77.0.1/24"

[[service]]
name = "record"
title = "Dossier patient (DPI)"
priority = 1
required = true
address = "10.1.20.12"
gateway = "10.1.20.1"
memory = "128M"
disks = ["record-system"]
ready = [{ http = "http://:80/", expect = 200 }]

[[service]]
name = "imaging"
title = "Imagerie (PACS)"
priority = 2
address = "10.1.20.13"
gateway = "10.1.20.1"
memory = "128M"
disks = ["imaging-system"]
ready = [{ http = "http://:80/", expect = 200 }]
""",
    f"etc/systemd/system/{DAEMON}.d/test.conf": f"""
[Service]
ExecStart=
ExecStart=/usr/bin/cleanroomd --plan /{PLAN} --root /var/lib/cleanroom --unsealed
WatchdogSec={WATCHDOG}
""",
    # The daemon asks for the version and, without virtualisation, runs nothing: no machine has its disk.
    "usr/bin/qemu-system-x86_64": "#!/bin/sh\necho QEMU emulator version 10.0.0\n",
}

LABORATORY = """
[[service]]
name = "laboratory"
title = "Laboratoire"
priority = 1
address = "10.1.20.14"
gateway = "10.1.20.1"
memory = "128M"
disks = ["laboratory-system"]
ready = [{ http = "http://:80/", expect = 200 }]
"""
"""One more service for a changed plan."""


def eventually(condition: Callable[[], object], what: str, container: Container) -> None:
    """Wait until `condition` holds; it is looked at again and again, since nothing tells of it from in there."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:.0f} s\n{journal(container)}"
        time.sleep(0.05)


def journal(container: Container) -> str:
    """What the daemon's unit said, as people read it."""
    return container.run("journalctl", "--no-pager", "--output=cat", f"--unit={DAEMON}").stdout


def entries(container: Container, *matches: str) -> list[dict[str, Any]]:
    """Entries of the real journal."""
    container.run("journalctl", "--sync")
    done = container.run("journalctl", "--no-pager", "--output=json", *matches)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def status(container: Container) -> dict[str, Any]:
    done = container.run("varlinkctl", "call", "--json=short", CONTROL, f"{INTERFACE}.GetStatus", "{}")
    assert done.returncode == 0, f"{done.stderr}\n{journal(container)}"
    found: dict[str, Any] = json.loads(done.stdout)["status"]
    return found


def services(container: Container) -> dict[str, str]:
    """Service -> state."""
    return {service["name"]: service["state"] for service in status(container)["services"]}


def main_pid(container: Container, unit: str = DAEMON) -> int:
    return int(container.property(unit, "MainPID"))


def restarts(container: Container, unit: str = DAEMON) -> int:
    """How often systemd brought the unit back by itself."""
    return int(container.property(unit, "NRestarts"))


def write_plan(container: Container, text: str) -> None:
    done = container.run("tee", f"/{PLAN}", text=text)
    assert done.returncode == 0, done.stderr
