"""Run by test_rig.py as the essential unit of a sandbox: does one thing with the hosts, says what came of it.

python -m tests.kernel.rig_inside DEED DESCRIPTOR FOLDER
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from cleanroomd.model.plan import Disk, Enclosure, HttpProbe, Plan, Port, Service, Zone
from rigs import attack, intruder, namespaces
from rigs.namespaces import Node, Rig, rig
from rigs.pid1 import Unit

PLAN = Plan(
    enclosure=Enclosure(name="Test"),
    ports=(Port(name="uplink", address=IPv4Interface("192.168.40.5/24")), Port(name="care")),
    zones=(Zone(name="workstations", port="care", address=IPv4Interface("10.77.0.1/24")),),
    services=(
        Service(
            name="record",
            title="",
            priority=1,
            address=IPv4Address("10.77.0.100"),
            mac="52:54:00:00:00:10",
            memory=1,
            memory_min=1,
            disks=(Disk("d"),),
            ready=(HttpProbe(port=80),),
        ),
    ),
)
"""The machine has the workstation's address: what is forwarded to it shows that everything gets through."""


def processes(node: Node) -> list[str]:
    """Command lines of everything in a host, its PID 1 included."""
    shown = node.run(["ps", "-e", "-o", "args="]).stdout.splitlines()
    return [line for line in shown if not line.startswith("ps ")]


def ports(node: Node) -> dict[str, str]:
    shown = json.loads(node.run(["ip", "-json", "link"]).stdout)
    return {link["ifname"]: link["address"] for link in shown if link["ifname"] != "lo"}


def power_cut(hosts: Rig) -> dict[str, Any]:
    """A daemonised process, one that ignores signals and a tap: all gone at once, and a new boot is a new boot."""
    enclosure = hosts.enclosure
    enclosure.power_on()
    enclosure.run(["ip", "tuntap", "add", "dev", "t-record", "mode", "tap"])
    enclosure.run(["sh", "-c", "setsid --fork sh -c 'trap \"\" TERM HUP INT; sleep 1000' >/dev/null 2>&1"])
    before = processes(enclosure)
    pids = [os.pidfd_open(int(pid)) for pid in _pids_of(enclosure)]
    found: dict[str, Any] = {
        "before": before,
        "ports": ports(enclosure),
        "boot": enclosure.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout,
    }
    enclosure.power_cut()
    found["alive"] = [pid for pid in pids if not _ended(pid)]
    found["cables"] = [*ports(hosts.hospital), *ports(hosts.workstation)]
    enclosure.power_on()
    found["ports again"] = ports(enclosure)
    found["boot again"] = enclosure.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    return found


def open_enclosure(hosts: Rig) -> dict[str, Any]:
    """An enclosure that forwards everything: what the attackers must notice."""
    enclosure = hosts.enclosure
    enclosure.power_on()
    for command in (
        "ip address add 192.168.40.5/24 dev uplink0",
        "ip link set uplink0 up",
        "ip address add 10.77.0.1/24 dev care0",
        "ip link set care0 up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ):
        done = enclosure.run(command.split())
        if done.returncode != 0:
            return {"problem": f"{command}: {done.stderr}"}
    attacker = attack.hospital_attacker(PLAN, addresses=("192.168.40.1",), fallback_mac=namespaces.UPLINK_MAC)
    order = {**attack.order(attacker, PLAN), "interface": namespaces.HOSPITAL_LINK, "seconds": 0.2}
    order["targets"] = [{**target, "tcp": [22], "udp": [53]} for target in order["targets"]]
    listener = enclosure.popen(
        [sys.executable, intruder.__file__, json.dumps({"act": "watch", "emitted": True})],
        stdin=-1,
        stdout=-1,
        text=True,
    )
    if listener.stdout is None or listener.stdout.readline() != "listening\n":
        return {"problem": "no listener"}
    outcome = json.loads(hosts.hospital.run([sys.executable, intruder.__file__, json.dumps(order)]).stdout)
    heard = json.loads(listener.communicate()[0])
    forwarded = attack.judge(attacker, {**outcome, "heard": []}, heard["seen"])
    answered = attack.judge(attacker, outcome, ())
    return {"forwarded": forwarded.through, "answered": answered.through, "tried": outcome["tried"]}


def supervise(hosts: Rig) -> dict[str, Any]:
    """Which unit started when, and that one that is killed comes back."""
    folder = Path(sys.argv[3])
    hosts.enclosure.power_on()
    starts = folder / "starts"
    _wait(lambda: starts.exists() and "second" in starts.read_text())
    order = starts.read_text().split()
    hosts.enclosure.run(["pkill", "-KILL", "-f", "second-unit"])
    _wait(lambda: starts.read_text().split().count("second") == 2)
    return {"order": order, "after": starts.read_text().split()}


def _pids_of(node: Node) -> list[str]:
    """Processes of a host as numbered in the sandbox: those whose PID namespace is its PID 1's."""
    namespace = Path(f"/proc/{node.pid}/ns/pid").stat().st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").stat().st_ino == namespace:
                found.append(entry.name)
        except OSError:
            continue
    return found


def _ended(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def main() -> None:
    deed, descriptor, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    says_ready = (
        "import os, socket, sys, time\n"
        "open(sys.argv[1], 'a').write('first ')\n"
        "time.sleep(0.3)\n"
        "open(sys.argv[1], 'a').write('ready ')\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', '\\0'))\n"
        "time.sleep(1000)\n"
    )
    starts = str(folder / "starts")
    units = (
        Unit("first", (sys.executable, "-c", says_ready, starts), notify=True, log=str(folder / "first.log")),
        Unit("second", ("sh", "-c", f"echo second >> {starts}; sleep 1000 # second-unit")),
    )
    deeds = {"power_cut": power_cut, "open_enclosure": open_enclosure, "supervise": supervise}
    with rig(root=folder, units=units, log=folder / "hosts.log") as hosts:
        if deed == "stay":
            hosts.enclosure.power_on()
            os.write(descriptor, b"{}\n")
            signal.pause()
        os.write(descriptor, json.dumps(deeds[deed](hosts)).encode() + b"\n")


if __name__ == "__main__":
    main()
