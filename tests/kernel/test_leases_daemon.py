"""A whole daemon and its keeper, with a workstation inside and the hospital outside; no machine runs.

A lease is opened through the control socket, and ends on time whoever is stopped or dead by then.
"""

import asyncio
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cleanroomd.control.client import Client
from cleanroomd.control.client.once import read_status
from cleanroomd.errors import ControlError
from cleanroomd.model.status import LeaseStatus, Status
from tests.kernel.namespaces import Namespace, move
from tests.kernel.test_keeper import keeper
from tests.kernel.test_leases import OUTSIDE, boottime, wait_until
from tests.kernel.world import CARE, CARE_MAC, HOSPITAL, HOSPITAL_MAC, UPLINK_MAC, WORKSTATION, WORKSTATION_MAC

pytestmark = pytest.mark.timeout(120)

DEADLINE = 30.0
PORT = 2575
PLAN = f"""
[enclosure]
name = "test"
quarantine = "1s"

[ports.uplink]
match = {{ mac = "{UPLINK_MAC}" }}
address = "{OUTSIDE}/24"

[ports.care]
match = {{ mac = "{CARE_MAC}" }}

[zones.workstations]
port = "care"
address = "{CARE}/24"

[[service]]
name = "imaging"
title = "imaging"
priority = 1
address = "10.1.20.14"
gateway = "10.1.20.1"
memory = "128M"
disks = ["imaging-system"]
ready = [{{ dicom = 104, aet = "IMAGING" }}]

[[window]]
name = "results"
from = "workstations"
to = "{HOSPITAL}"
tcp = [{PORT}]
max = "10m"

[[window]]
name = "images"
from = "imaging"
to = "{HOSPITAL}"
tcp = [104]
max = "10m"
"""
QEMU = "#!/bin/sh\necho 'QEMU emulator version 7.2.22'\n"
"""No machine ever starts, for there is no disk; the daemon wants to know the version all the same."""


@dataclass
class Rig:
    enclosure: Namespace
    workstation: Namespace
    hospital: Namespace
    root: Path

    @property
    def control(self) -> Path:
        return self.root / "control"

    def status(self) -> Status:
        return read_status(self.control)

    def until(self, holds: Callable[[Status], bool]) -> Status:
        """The first status for which `holds`."""

        async def watch() -> Status:
            async with asyncio.timeout(DEADLINE):
                while True:
                    try:
                        async for status in Client(self.control).watch():
                            if holds(status):
                                return status
                    except ControlError:
                        # It is not there yet.
                        await asyncio.sleep(0.05)

        return asyncio.run(watch())

    def open(self, seconds: float, window: str = "results", reason: str = "results of the night") -> LeaseStatus:
        asyncio.run(Client(self.control).open_uplink(window, seconds, reason))
        status = self.until(lambda status: any(not lease.problem for lease in status.isolation.leases))
        return status.isolation.leases[0]

    def close(self, window: str | None = None) -> str:
        return asyncio.run(Client(self.control).close_uplink(window))

    def link(self) -> tuple[bool, list[str]]:
        """Whether the uplink is up, and its addresses."""
        with self.enclosure.entered():
            (found,) = json.loads(self.enclosure.run("ip", "-json", "address", "show", "up0"))
        return "UP" in found["flags"], [address["local"] for address in found["addr_info"]]

    def connected(self) -> tuple[socket.socket, socket.socket]:
        with self.hospital.listener(HOSPITAL, PORT) as listener:
            near = self.workstation.open_socket()
            near.connect((HOSPITAL, PORT))
            far, _ = listener.accept()
        near.sendall(b"ask")
        assert far.recv(8) == b"ask"
        return near, far

    def journal(self) -> list[dict[str, object]]:
        lines = (self.root / "state" / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @contextmanager
    def daemon(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """The daemon sees the namespace's own devices in /sys; killed at the end if it still runs."""
        arguments = [
            *("--plan", str(self.root / "plan.toml"), "--root", str(self.root), "--unsealed"),
            *("--control", str(self.control), "--keeper", str(self.root / "keeper"), "--qemu", str(self.root / "qemu")),
        ]
        command = f'mount -t sysfs sysfs /sys && exec {sys.executable} -m cleanroomd "$@"'
        repository = str(Path(__file__).parents[2])
        with self.enclosure.entered(), (self.root / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", command, "sh", *arguments, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": repository},
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "vault").mkdir()
    (tmp_path / "qemu").write_text(QEMU)
    (tmp_path / "qemu").chmod(0o755)
    with ExitStack() as resources:
        spaces = []
        for _ in range(3):
            spaces.append(Namespace())
            resources.callback(spaces[-1].close)
        found = Rig(*spaces, root=tmp_path)
        found.enclosure.ip(f"link add care address {CARE_MAC} type veth peer name eth0 address {WORKSTATION_MAC}")
        move("eth0", found.enclosure, found.workstation)
        found.enclosure.ip(f"link add up0 address {UPLINK_MAC} type veth peer name eth0 address {HOSPITAL_MAC}")
        move("eth0", found.enclosure, found.hospital)
        found.workstation.ip(f"addr add {WORKSTATION}/24 dev eth0")
        found.hospital.ip(f"addr add {HOSPITAL}/24 dev eth0")
        for space in (found.workstation, found.hospital):
            space.ip("link set eth0 up")
        found.workstation.ip(f"route add default via {CARE}")
        resources.enter_context(keeper(found.enclosure, tmp_path / "keeper"))
        yield found


def served(status: Status) -> bool:
    """The workstations' port is open, and with it the window that leads from there can be."""
    return status.isolation.proven and all(port.state == "open" for port in status.ports)


def cut(rig: Rig, near: socket.socket, far: socket.socket) -> bool:
    """Whether nothing passes between the two ends any more."""
    far.settimeout(0.5)
    near.send(b"late")
    try:
        return far.recv(8) != b"late"
    except TimeoutError:
        return True


def test_a_lease_opens_closes_by_itself_and_is_in_the_journal(rig: Rig) -> None:
    with rig.daemon():
        assert rig.until(served).isolation.uplink == "dark"
        assert rig.link() == (False, [])
        lease = rig.open(8.0)
        assert (lease.author, lease.reason) == (pwd.getpwuid(os.geteuid()).pw_name, "results of the night")
        assert 0 < lease.until - boottime() <= 8.0
        assert rig.link() == (True, [OUTSIDE])
        near, far = rig.connected()
        assert far.getpeername()[0] == OUTSIDE
        with near, far:
            with pytest.raises(ControlError, match="already, for another"):
                rig.open(60.0)
            wait_until(lease.until + 0.05)
            status = rig.until(lambda status: not status.isolation.leases)
            assert status.isolation.uplink == "dark"
            assert cut(rig, near, far)
        assert rig.link() == (False, [])
        assert status.isolation.foreign_changes == 0, [alarm.what for alarm in status.isolation.alarms]
    told = [str(entry["text"]) for entry in rig.journal() if "window" in entry]
    assert len(told) == 2
    assert told[0].startswith(f"{lease.author} opened the uplink for results, workstations to {HOSPITAL}, tcp {PORT}")
    assert "its time is over" in told[1]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_it_ends_on_time_with_a_daemon_that_is(rig: Rig, number: signal.Signals) -> None:
    with rig.daemon() as daemon:
        rig.until(served)
        lease = rig.open(6.0)
        near, far = rig.connected()
        with near, far:
            daemon.send_signal(number)
            assert not cut(rig, near, far), "the flow goes on without the daemon"
            assert rig.link() == (True, [OUTSIDE])
            wait_until(lease.until)
            assert cut(rig, near, far)
            end = time.monotonic() + 2.0
            while rig.link() != (False, []):
                assert time.monotonic() < end, "the keeper takes the link down"
                time.sleep(0.02)
        if number is signal.SIGSTOP:
            daemon.send_signal(signal.SIGCONT)
            rig.until(lambda status: status.now > lease.until and status.isolation.uplink == "dark")
            assert rig.link() == (False, [])


def test_a_restarted_daemon_keeps_its_end_and_the_connection(rig: Rig) -> None:
    with rig.daemon() as first:
        rig.until(served)
        lease = rig.open(300.0)
        near, far = rig.connected()
        first.send_signal(signal.SIGKILL)
        first.wait()
    with near, far, rig.daemon():
        status = rig.until(lambda status: bool(status.isolation.leases) and served(status))
        (found,) = status.isolation.leases
        assert (found.until, found.author, found.reason) == (lease.until, lease.author, lease.reason)
        assert not cut(rig, near, far)
        assert rig.link() == (True, [OUTSIDE])
        assert rig.close() == "results is being closed"
        rig.until(lambda status: not status.isolation.leases)
        assert cut(rig, near, far)
        assert rig.link() == (False, [])
        assert rig.close() == "the uplink is dark already"


def test_what_is_refused(rig: Rig) -> None:
    with rig.daemon():
        rig.until(served)
        for seconds, window, reason, why in (
            (60.0, "nonsense", "x", "the plan has none of that name"),
            (601.0, "results", "x", "the plan allows 10 min 00 s at most"),
            (float("1e300"), "results", "x", "the plan allows 10 min 00 s at most"),
            (-1.0, "results", "x", "5 s is the shortest time"),
            (60.0, "results", "  ", "it needs a reason"),
            (60.0, "results", "a\x1b[2J", "it needs a reason"),
            (60.0, "results", "x" * 201, "it needs a reason"),
            (60.0, "images", "x", "imaging, which connects, is not ready"),
        ):
            with pytest.raises(ControlError, match=why):
                asyncio.run(Client(rig.control).open_uplink(window, seconds, reason))
        assert rig.status().isolation.leases == ()
        assert rig.link() == (False, [])


def test_a_drill_never_opens_not_even_what_was_open_before(rig: Rig) -> None:
    with rig.daemon() as first:
        rig.until(served)
        rig.open(300.0)
        first.send_signal(signal.SIGKILL)
        first.wait()
    with rig.daemon("--drill"):
        status = rig.until(served)
        assert status.drill
        with pytest.raises(ControlError, match="this is an exercise, in which the uplink never opens"):
            rig.open(60.0)
        assert rig.until(lambda status: not status.isolation.leases).isolation.uplink == "dark"
        rig.until(lambda _: rig.link() == (False, []))
