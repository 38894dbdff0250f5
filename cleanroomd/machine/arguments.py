"""The command line of a machine's QEMU, from the plan: pure, so that it can be shown, compared and sealed."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.model.plan import Service

MACHINE_TYPE = "pc-q35-7.2"
"""Versioned, and known to every QEMU from 7.2 on: a machine looks the same after an upgrade of the image."""

CPU_MODEL = "Nehalem-v1"
"""Named, so that every enclosure offers the same; the x86-64-v2 level, which emulation offers in full as well."""

OVERHEAD = {"kvm": 192 << 20, "tcg": 384 << 20}
"""Bytes that a QEMU takes beside its guest's memory, by accelerator; for TCG with the cache below."""

_TRANSLATION_CACHE_MIB = 256  # unbounded it grows to 1.4 GB per machine

_UUID_NAMESPACE = uuid.UUID("f1b2e4b6-5d0c-5b0e-9e55-6f1d2c6f0a11")


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A sealed image and the crisis overlay on it; the overlay is the only one that is ever written."""

    name: str
    golden: Path
    golden_format: str
    """"qcow2" or "raw"."""
    overlay: Path


@dataclass(frozen=True, slots=True)
class Handles:
    """File descriptors that QEMU inherits: it opens no tap and binds no socket by itself."""

    tap: int
    qmp: int
    tools: int
    agent: int


def pid_file(directory: Path) -> Path:
    """The file by which a machine's process is recognised as the one that runs in `directory`."""
    return directory / "pid"


def qemu_arguments(
    service: Service,
    *,
    memory: int,
    disks: tuple[DiskImage, ...],
    directory: Path,
    accelerator: str,
    handles: Handles,
) -> tuple[str, ...]:
    """Arguments after the program name. `memory` is in bytes, `directory` the machine's own run directory."""
    arguments = [
        *("-name", f"guest={service.name},debug-threads=on"),
        *("-uuid", str(uuid.uuid5(_UUID_NAMESPACE, service.name))),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-pidfile", str(pid_file(directory))),
        *("-machine", MACHINE_TYPE),
        *("-accel", _accelerator(accelerator)),
        *("-cpu", CPU_MODEL),
        *("-smp", str(service.cpus)),
        *("-m", f"{memory >> 20}M"),
        *("-rtc", "base=utc,driftfix=slew"),
        *("-vga", "std"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=qmp,fd={handles.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=tools,fd={handles.tools},server=on,wait=off"),
        *("-mon", "chardev=tools,mode=control"),
        *("-chardev", f"file,id=console,path={_escape(directory / 'console.log')},append=on"),
        *("-serial", "chardev:console"),
        *("-netdev", f"tap,id=net0,fd={handles.tap},vhost=off"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={service.mac},romfile="),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={handles.agent},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]
    for index, disk in enumerate(disks):
        boot = ",bootindex=0" if index == 0 else ""
        arguments += [
            *("-blockdev", json.dumps(_blockdev(f"disk{index}", disk))),
            *("-device", f"virtio-blk-pci,drive=disk{index},serial={disk.name[:20]}{boot}"),
        ]
    return tuple(arguments)


def _accelerator(kind: str) -> str:
    return f"tcg,thread=multi,tb-size={_TRANSLATION_CACHE_MIB}" if kind == "tcg" else kind


def _blockdev(node: str, disk: DiskImage) -> dict[str, object]:
    """Both layers named in full: what an image's header says of its backing file is never followed."""
    golden: dict[str, object] = {
        "driver": disk.golden_format,
        "read-only": True,
        "file": {"driver": "file", "filename": str(disk.golden), "read-only": True},
    }
    if disk.golden_format == "qcow2":
        golden["backing"] = None
    return {
        "node-name": node,
        "driver": "qcow2",
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": str(disk.overlay),
            "locking": "on",
            "cache": {"direct": False, "no-flush": False},
        },
        "backing": golden,
    }


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")
