"""The command line of a machine's QEMU, from the plan: pure, so that it can be shown, compared and sealed."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.model.plan import Controller, Nic, Service

MACHINE_TYPE = "pc-q35-7.2"
"""Versioned, and known to every QEMU from 7.2 on: a machine looks the same after an upgrade of the image."""

IDE_MACHINE_TYPE = "pc-i440fx-7.2"
"""The chipset with IDE channels, which Q35 lacks; as old as the systems that know no other disk."""

UEFI_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
"""Debian's UEFI firmware, without Secure Boot; read-only, shared by all machines."""

CPU_MODEL = "Nehalem-v1"
"""Named, so that every enclosure offers the same; the x86-64-v2 level, which emulation offers in full as well."""

OVERHEAD = {"kvm": 192 << 20, "tcg": 384 << 20}
"""Bytes that a QEMU takes beside its guest's memory, by accelerator; for TCG with the cache below."""

_TRANSLATION_CACHE_MIB = 256  # unbounded it grows to 1.4 GB per machine

_NIC_DEVICES = {
    Nic.VIRTIO: "virtio-net-pci",
    Nic.E1000: "e1000",
    Nic.E1000E: "e1000e",
    Nic.RTL8139: "rtl8139",
}

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

    taps: tuple[int, ...]
    """One for each network card, the first one first."""
    qmp: int
    tools: int
    agent: int

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.taps, self.qmp, self.tools, self.agent)


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
    variables: Path | None = None,
) -> tuple[str, ...]:
    """Arguments after the program name. `memory` is in bytes, `directory` the machine's own run directory.

    `variables` is what the machine's UEFI firmware remembers; a machine without it boots with BIOS firmware.
    """
    arguments = [
        *("-name", f"guest={service.name},debug-threads=on"),
        *("-uuid", str(uuid.uuid5(_UUID_NAMESPACE, service.name))),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-pidfile", str(pid_file(directory))),
        *_board(service, variables),
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
        *_network(service, handles.taps),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={handles.agent},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]
    if service.controller is Controller.SCSI:
        arguments += ("-device", "virtio-scsi-pci,id=scsi")
    for index, disk in enumerate(disks):
        boot = ",bootindex=0" if index == 0 else ""
        attached = _attached(service.controller, index)
        arguments += [
            *("-blockdev", json.dumps(_blockdev(f"disk{index}", disk))),
            *("-device", f"{attached},drive=disk{index},serial={disk.name[:20]}{boot}"),
        ]
    return tuple(arguments)


def _board(service: Service, variables: Path | None) -> tuple[str, ...]:
    kind = IDE_MACHINE_TYPE if service.controller is Controller.IDE else MACHINE_TYPE
    if variables is None:
        return ("-machine", kind)
    code = {"driver": "file", "filename": str(UEFI_CODE), "read-only": True}
    store = {"driver": "file", "filename": str(variables), "locking": "on"}
    return (
        *("-blockdev", json.dumps({"node-name": "firmware", "driver": "raw", "read-only": True, "file": code})),
        *("-blockdev", json.dumps({"node-name": "variables", "driver": "raw", "file": store})),
        *("-machine", f"{kind},pflash0=firmware,pflash1=variables"),
    )


def _network(service: Service, taps: tuple[int, ...]) -> Iterator[str]:
    for index, (card, tap) in enumerate(zip(service.cards, taps, strict=True)):
        yield from ("-netdev", f"tap,id=net{index},fd={tap},vhost=off")
        yield from ("-device", f"{_NIC_DEVICES[card.model]},netdev=net{index},mac={card.mac},romfile=")


def _attached(controller: Controller, index: int) -> str:
    """The device of the disk at `index` in the plan, at the place that it always has."""
    match controller:
        case Controller.VIRTIO:
            return "virtio-blk-pci"
        case Controller.SCSI:
            return f"scsi-hd,bus=scsi.0,scsi-id={index}"
        case Controller.SATA:
            return f"ide-hd,bus=ide.{index},unit=0"
        case Controller.IDE:
            return f"ide-hd,bus=ide.{index // 2},unit={index % 2}"


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
