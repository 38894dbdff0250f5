"""The essential unit of a benchmark's sandbox: ten machines here, ten in libvirt, and both command lines in turn.

python -m rigs.bench.cli_inside DESCRIPTOR ROOT
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from cleanroomd.control.client import Client
from rigs import orchestrate
from rigs.bench.figures import interleave
from rigs.bench.restore_inside import restored
from rigs.namespaces import rig

RUNS = 15
MACHINES = 10
_DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type machine='q35'>hvm</type></os></domain>
"""


def timed(argv: list[str]) -> float:
    """Wall seconds of a command that must succeed."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def resident(pid: int) -> float:
    """MB (10^6 bytes) of memory that a process holds."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def process_of(pattern: str) -> int:
    return int(subprocess.run(["pgrep", "-f", "-o", "--", pattern], check=True, capture_output=True).stdout)


def start_libvirt(root: Path) -> None:
    """A libvirtd of the sandbox's own, with ten paused machines that have nothing to run."""
    for folder in ("/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    (root / "qemu.conf").write_text(
        'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\n'
    )
    subprocess.run(["mount", "--bind", str(root / "qemu.conf"), "/etc/libvirt/qemu.conf"], check=True)
    for daemon in ("virtlogd", "libvirtd"):
        subprocess.run([daemon, "-d"], check=True)
    for number in range(MACHINES):
        path = root / f"domain{number}.xml"
        path.write_text(_DOMAIN.format(name=f"bench{number}"))
        subprocess.run(["virsh", "-c", "qemu:///system", "create", "--paused", str(path)], check=True)


def main() -> None:
    descriptor, root = int(sys.argv[1]), Path(sys.argv[2])
    start_libvirt(root)
    control = root / "run/control"
    with rig(root=root, units=orchestrate.units(root, root / "logs"), log=root / "logs/hosts.log") as hosts:
        hosts.enclosure.power_on()
        asyncio.run(restored(Client(control)))
        ctl = str(Path(sys.executable).parent / "cleanroomctl")
        found = interleave(
            {
                "status": lambda: timed([ctl, "--socket", str(control), "status"]),
                "virsh": lambda: timed(["virsh", "-c", "qemu:///system", "list"]),
                "daemon": lambda: resident(process_of("-m cleanroomd --plan")),
                "libvirtd": lambda: resident(process_of("libvirtd -d")),
            },
            runs=RUNS,
        )
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
