"""The tables and keys of a plan file, one class for each kind of table; those of `ready` are in `probes`.

The one place where keys, defaults and their descriptions live: the JSON schema and the messages about missing
and misspelt keys are made from it. What depends on more than one table is in `crosscheck`.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cleanroomd.model.plan import Controller, DiskKind, Firmware, Nic, StartKind
from cleanroomd.plan.probes import PROBE_TAG, PROBES, Probe
from cleanroomd.plan.problems import Loc
from cleanroomd.plan.values import Address, Duration, IdPath, Interface, Mac, Name, PortNumber, Size, Table, Text


class Language(StrEnum):
    FRENCH = "fr"
    ENGLISH = "en"


class EnclosureTable(Table):
    """What the enclosure is called and what is expected of it."""

    name: Text = Field(description="Name on the screen and in reports.", examples=["Caisson 1, GHT Vaucluse"])
    language: Language = Field(
        Language.FRENCH, strict=False, description="Language of the enclosure's own screen.", examples=["fr"]
    )
    rto: Duration | None = Field(
        None,
        description="Target time from power-on until every required service is ready, as 30m or 1h30m.",
        examples=["30m"],
    )
    quarantine: Duration = Field(
        "5s",
        validate_default=True,
        description="How long a port with zones is only listened to, each time a cable is plugged in, before it opens; "
        "it stays closed when it hears another network.",
        examples=["5s"],
    )


class MatchTable(Table):
    """How a physical port is recognised: by exactly one of `path` and `mac`, never by its kernel name."""

    path: IdPath | None = Field(None, description="udev's ID_PATH of the network card.", examples=["pci-0000:01:00.0"])
    mac: Mac | None = Field(
        None, description="Permanent MAC address of the network card.", examples=["52:54:00:00:00:02"]
    )

    @model_validator(mode="after")
    def _one(self) -> "MatchTable":
        if (self.path is None) == (self.mac is None):
            raise ValueError('needs exactly one of path and mac; write for example { path = "pci-0000:01:00.0" }')
        return self


class PortTable(Table):
    """A physical network port. The one called `uplink` leads to the hospital's network."""

    match: MatchTable = Field(description="How the port is recognised.", examples=[{"path": "pci-0000:01:00.0"}])
    address: Interface | None = Field(
        None,
        description="Uplink only: IPv4 address and prefix length, used only while a lease is open; "
        "what leases let out carries it as source.",
        examples=["192.168.40.5/24"],
    )
    gateway: Address | None = Field(
        None, description="Uplink only: gateway of the hospital's network.", examples=["192.168.40.1"]
    )


class DhcpTable(Table):
    """Addresses that the enclosure hands out in a zone, both ends included."""

    first: Address = Field(alias="from", description="First address handed out.", examples=["10.77.0.100"])
    last: Address = Field(alias="to", description="Last address handed out.", examples=["10.77.0.199"])


class ZoneTable(Table):
    """Clean equipment behind a port."""

    port: Name = Field(description="Name of the port, from [ports.NAME]; never the uplink.", examples=["care"])
    address: Interface = Field(
        description="The enclosure's own IPv4 address there; its network is who may speak.",
        examples=["10.77.0.1/24"],
    )
    vlan: int | None = Field(
        None, ge=1, le=4094, description="VLAN tag, 1 to 4094; none for untagged frames.", examples=[30]
    )
    dhcp: DhcpTable | None = Field(
        None,
        description="Range handed out by DHCP; none for equipment with fixed addresses.",
        examples=[{"from": "10.77.0.100", "to": "10.77.0.199"}],
    )


class DiskTable(Table):
    """A disk of the vault. A string alone means a disk of that name and kind "system"."""

    name: Name = Field(description="Name of the disk in the vault.", examples=["imaging-data"])
    kind: DiskKind = Field(
        DiskKind.SYSTEM,
        strict=False,
        description='"system" is sealed with the machine; "data" has its own recovery point and may be '
        "refreshed between drills.",
        examples=["data"],
    )


def _named_disk(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Disk = Annotated[DiskTable, BeforeValidator(_named_disk, json_schema_input_type=Name | DiskTable)]


class CardTable(Table):
    """A network card of a machine beside its first one; flows call it SERVICE.NAME."""

    name: Name = Field(description="Name of the card, unique in its service.", examples=["modalities"])
    address: Address = Field(description="IPv4 address that it always had.", examples=["10.1.40.14"])
    gateway: Address | None = Field(
        None, description="Gateway that it always had, answered for by the enclosure.", examples=["10.1.40.1"]
    )
    mac: Mac | None = Field(
        None,
        description="MAC address that it always had; one derived from the names without it.",
        examples=["52:54:00:12:34:57"],
    )
    nic: Nic = Field(Nic.VIRTIO, strict=False, description="Its model, as `nic` of the service.", examples=["e1000"])


class ServiceTable(Table):
    """One machine of critical care."""

    name: Name = Field(description="Short name, unique in the plan.", examples=["imaging"])
    title: Text | None = Field(
        None, description="Name that people read; the short name without it.", examples=["Imagerie (PACS)"]
    )
    priority: int = Field(ge=1, le=5, description="Care priority, 1 (first) to 5.", examples=[2])
    required: bool = Field(
        default=False,
        description="Whether the run halts without it. What it depends on counts as required too.",
        examples=[True],
    )
    depends_on: list[str] = Field(
        [], description="Services that must be ready before it starts.", examples=[["identity"]]
    )
    address: Address = Field(description="IPv4 address that the machine always had.", examples=["10.1.20.14"])
    gateway: Address | None = Field(
        None,
        description="Gateway that the machine always had, answered for by the enclosure.",
        examples=["10.1.20.1"],
    )
    mac: Mac | None = Field(
        None,
        description="MAC address that the machine always had; one derived from the name without it.",
        examples=["52:54:00:12:34:56"],
    )
    memory: Size = Field(description="Memory in binary units, M, G or T.", examples=["4G"])
    memory_min: Size | None = Field(
        None,
        description="Least memory that it still runs with; the same as memory without it.",
        examples=["2G"],
    )
    cpus: int = Field(1, ge=1, le=64, description="Virtual processors, 1 to 64.", examples=[2])
    disks: list[Disk] = Field(
        min_length=1,
        description="Disks of the vault, the one to boot from first.",
        examples=[["imaging-system"]],
    )
    firmware: Firmware = Field(
        Firmware.BIOS,
        strict=False,
        description='Firmware that the machine boots with: the one that its system was installed under, "bios" or '
        '"uefi" (without Secure Boot).',
        examples=["uefi"],
    )
    controller: Controller = Field(
        Controller.VIRTIO,
        strict=False,
        description='What its disks are attached to: "virtio" or "scsi" (VirtIO SCSI), "sata" (AHCI) for a system '
        'without drivers for these, "ide" for one from before SATA, on a chipset of its time (i440FX).',
        examples=["sata"],
    )
    nic: Nic = Field(
        Nic.VIRTIO,
        strict=False,
        description='Model of its network card: "virtio", or for a system without a driver for it "e1000", '
        '"e1000e" (Intel) or "rtl8139" (Realtek).',
        examples=["e1000"],
    )
    nics: list[CardTable] = Field(
        [],
        max_length=7,
        description="Its network cards beside the first one, which address, gateway, mac and nic describe; 7 at most.",
        examples=[[{"name": "modalities", "address": "10.1.40.14"}]],
    )
    start: StartKind = Field(
        StartKind.COLD,
        strict=False,
        description='"warm" from a sealed memory image, where there is one that fits; "cold" boots.',
        examples=["warm"],
    )
    role: Literal["domain-controller"] | None = Field(
        None,
        description="Set for a domain controller, which only ever starts cold.",
        examples=["domain-controller"],
    )
    guest_agent: bool = Field(
        default=False,
        description="Whether the QEMU guest agent is installed in it: such a machine is asked through it to shut down "
        "when it ignores its power button, and may be ready by it.",
        examples=[True],
    )
    ready: list[Probe] = Field(
        min_length=1,
        description="Probes that must all be answered before it counts as ready, one protocol each.",
        examples=[[{"dicom": 4242, "aet": "ORTHANC"}]],
    )
    ready_timeout: Duration = Field(
        "5m",
        validate_default=True,
        description="Longest time from first instruction to ready, for example 90s or 3m.",
        examples=["3m"],
    )
    retries: int = Field(2, ge=0, le=10, description="Further attempts after one that failed, 0 to 10.", examples=[2])
    shutdown_timeout: Duration = Field(
        "90s",
        validate_default=True,
        description="Longest time for a graceful stop before the machine is killed.",
        examples=["90s"],
    )


class FlowTable(Table):
    """Connections that one end may open to the other once that one is ready."""

    origin: str = Field(
        alias="from", description="Zone, service or SERVICE.CARD that connects.", examples=["workstations"]
    )
    to: str = Field(description="Service, SERVICE.CARD or zone that is connected to.", examples=["imaging"])
    tcp: list[PortNumber] = Field([], description="TCP ports, 1 to 65535.", examples=[[4242, 8042]])
    udp: list[PortNumber] = Field([], description="UDP ports, 1 to 65535.", examples=[[53]])

    @model_validator(mode="after")
    def _opens_something(self) -> "FlowTable":
        if not self.tcp and not self.udp:
            raise ValueError("opens no port; write for example tcp = [443]")
        return self


class WindowTable(Table):
    """What a lease may open towards the uplink, and for how long at most."""

    name: Name = Field(description="Name by which the lease is opened.", examples=["backup-feed"])
    origin: str = Field(alias="from", description="Zone or service that connects.", examples=["imaging"])
    to: Address = Field(description="IPv4 address in the uplink's network.", examples=["192.168.40.10"])
    tcp: list[PortNumber] = Field(min_length=1, description="TCP ports, 1 to 65535.", examples=[[443]])
    longest: Duration = Field(alias="max", description="Longest time that a lease may last.", examples=["15m"])


class PlanFile(Table):
    """The recovery plan of an enclosure."""

    enclosure: EnclosureTable = Field(
        description="The enclosure as a whole.",
        examples=[{"name": "Caisson 1"}],
    )
    ports: dict[Name, PortTable] = Field(
        {}, description="Physical network ports by name; `uplink` is the hospital's network."
    )
    zones: dict[Name, ZoneTable] = Field({}, description="Clean equipment by name of its zone.")
    services: list[ServiceTable] = Field(
        alias="service", min_length=1, description="Machines of critical care, in the order of the plan."
    )
    flows: list[FlowTable] = Field([], alias="flow", description="Who may connect to whom, and to which ports.")
    windows: list[WindowTable] = Field([], alias="window", description="What a lease may open towards the uplink.")


ITEMS: dict[str, type[Table]] = {
    "enclosure": EnclosureTable,
    "ports": PortTable,
    "zones": ZoneTable,
    "service": ServiceTable,
    "flow": FlowTable,
    "window": WindowTable,
}
"""What one item of each section is."""

PARTS: dict[str, type[Table]] = {"match": MatchTable, "dhcp": DhcpTable, "disks": DiskTable, "nics": CardTable}
"""What the tables within items are, beside probes."""


def table_at(loc: Loc) -> type[Table]:
    """The kind of table that holds, or should hold, the key which a validator's location names last."""
    if len(loc) < 3:
        return EnclosureTable if len(loc) == 2 and loc[0] == "enclosure" else PlanFile
    for part in reversed(loc[2:-1]):
        if isinstance(part, str) and part.startswith(PROBE_TAG):
            return PROBES[part.removeprefix(PROBE_TAG)]
        if isinstance(part, str) and part in PARTS:
            return PARTS[part]
    return ITEMS[str(loc[0])]
