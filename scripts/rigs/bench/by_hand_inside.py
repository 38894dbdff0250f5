"""The peer of a restoration, in a sandbox: the same machines started without the daemon, and a plain poll of each.

They have the same QEMU arguments, taps, order and slots. What a person would have prepared is not measured: taps,
overlays, the accelerator. There are no rules, marks, records or sandboxed probes.

python -m rigs.bench.by_hand_inside DESCRIPTOR ROOT [SERVICE]
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.isolation import links
from cleanroomd.machine.accelerator import probe
from cleanroomd.machine.arguments import DiskImage, Handles, qemu_arguments
from cleanroomd.model.plan import Service
from cleanroomd.plan.load import load
from cleanroomd.restore.desired import planned_guards
from cleanroomd.restore.order import Outline
from rigs.bench.restore_inside import reduce_plan

QEMU = "qemu-system-x86_64"
CONNECT_SECONDS = 0.2
POLL_SECONDS = 0.05
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A machine that waits for nothing but its process."""

    service: Service
    argv: tuple[str, ...]
    descriptors: tuple[int, ...]


def prepare(outline: Outline, service: Service, root: Path, accelerator: str, stack: ExitStack) -> Prepared:
    """Taps, sockets and overlays; `stack` closes them."""
    directory = root / "hand" / service.name
    directory.mkdir(parents=True)
    taps = []
    for guard in planned_guards(outline, service):
        links.make_tap(guard.interface)
        links.attach_tap(guard)
        taps.append(links.open_tap(guard.interface))
        stack.callback(os.close, taps[-1])
    disks = []
    for disk in service.disks:
        image = DiskImage(disk.name, root / f"vault/{disk.name}.qcow2", "qcow2", directory / f"{disk.name}.qcow2")
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.golden), "-F", "qcow2"]
        subprocess.run([*create, str(image.overlay)], check=True)
        disks.append(image)
    qmp, tools, agent = (_listen(directory / f"{name}.sock", stack) for name in ("qmp", "tools", "agent"))
    handles = Handles(taps=tuple(taps), qmp=qmp, tools=tools, agent=agent)
    arguments = qemu_arguments(
        service,
        memory=service.memory,
        disks=tuple(disks),
        directory=directory,
        accelerator=accelerator,
        handles=handles,
    )
    argv = (QEMU, *(argument for argument in arguments if argument != "-S"))
    return Prepared(service, argv, handles.all)


def _listen(path: Path, stack: ExitStack) -> int:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen(1)
    return listener.fileno()


async def answers(address: str) -> None:
    """Return once an HTTP server at `address` says that it is ready."""
    while True:
        with suppress(OSError):
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(address, 80)
            with closing(writer):
                writer.write(REQUEST)
                if b"ready" in await reader.read():
                    return
        await asyncio.sleep(POLL_SECONDS)


async def start_all(outline: Outline, machines: dict[str, Prepared], slots: int) -> dict[str, float]:
    """Service -> seconds from the first start to its answer."""
    begin = time.monotonic()
    found: dict[str, float] = {}
    processes = []
    booting: dict[asyncio.Task[None], str] = {}
    waiting = [name for name in outline.start_order if name in machines]
    while waiting or booting:
        for name in tuple(waiting):
            prepared = machines[name]
            if len(booting) < slots and found.keys() >= set(prepared.service.depends_on):
                waiting.remove(name)
                processes.append(
                    await asyncio.create_subprocess_exec(
                        *prepared.argv, stdin=asyncio.subprocess.DEVNULL, pass_fds=prepared.descriptors
                    )
                )
                booting[asyncio.create_task(answers(str(prepared.service.address)))] = name
        done, _ = await asyncio.wait(booting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            found[booting.pop(task)] = time.monotonic() - begin
    for process in processes:
        process.kill()
        await process.wait()
    return found


def main() -> None:
    descriptor, root = int(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) > 3 and sys.argv[3]:
        reduce_plan(root / "plan.toml", sys.argv[3])
    outline = Outline(load(root / "plan.toml"))
    accelerator = asyncio.run(probe(Path(QEMU), cache=root / "accelerator.json")).kind
    with ExitStack() as stack:
        machines = {
            service.name: prepare(outline, service, root, accelerator, stack) for service in outline.plan.services
        }
        found = asyncio.run(start_all(outline, machines, len(os.sched_getaffinity(0))))
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
