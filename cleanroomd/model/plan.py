"""The recovery plan as frozen types, after every check has passed.

Sizes are bytes, durations are seconds, MAC addresses are lower-case with colons.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

UPLINK = "uplink"
"""The port of the compromised network. Its name is reserved: no flow may name it."""


class DiskKind(StrEnum):
    SYSTEM = "system"
    DATA = "data"


class StartKind(StrEnum):
    WARM = "warm"
    COLD = "cold"


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Controller(StrEnum):
    """What a machine's disks are attached to: the one that its system has a driver for."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"

    @property
    def most_disks(self) -> int:
        """As many as fit: PCI slots beside the machine's other devices, targets, or ports."""
        return {"virtio": 24, "scsi": 200, "sata": 6, "ide": 4}[self]


class Nic(StrEnum):
    """Model of a machine's network card."""

    VIRTIO = "virtio"
    E1000 = "e1000"
    E1000E = "e1000e"
    RTL8139 = "rtl8139"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The appliance that restores the plan."""

    name: str
    language: str = "fr"
    rto: float | None = None
    """Target time from power-on to the last required service ready."""
    quarantine: float = 5.0
    """Seconds for which a port with zones is only listened to before it opens."""


@dataclass(frozen=True, slots=True)
class Port:
    """A physical network port, recognised by permanent MAC or by udev path, never by kernel name."""

    name: str
    """What the plan calls it."""
    mac: str | None = None
    """Its permanent MAC address; None when `path` tells it."""
    path: str | None = None
    """Its ID_PATH in udev; None when `mac` tells it."""
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class DhcpRange:
    """Addresses handed out in a zone."""

    first: IPv4Address
    """The lowest of them."""
    last: IPv4Address
    """The highest of them."""


@dataclass(frozen=True, slots=True)
class Zone:
    """Clean equipment behind a port: `address` is the enclosure's own there, its network is who may speak."""

    name: str
    """What the plan calls it."""
    port: str
    address: IPv4Interface
    vlan: int | None = None
    dhcp: DhcpRange | None = None

    @property
    def network(self) -> IPv4Network:
        return self.address.network


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a machine, in the vault."""

    name: str
    kind: DiskKind = DiskKind.SYSTEM


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ready when a GET of `path` answers the status `expect` and a body that contains `contains`."""

    port: int
    path: str = "/"
    """What is asked for, with its query."""
    tls: bool = False
    expect: int = 200
    contains: str = ""
    pin: str = ""
    """SHA-256 of the certificate (DER) that the server must show, in hexadecimal; empty for any certificate."""


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Ready when `expect` is read after `send` was written; a bare connection proves nothing."""

    port: int
    expect: bytes
    send: bytes = b""


@dataclass(frozen=True, slots=True)
class PostgresProbe:
    """Ready when the server answers a start-up message as a server that accepts connections does."""

    port: int = 5432
    database: str = "postgres"
    user: str = "postgres"


@dataclass(frozen=True, slots=True)
class MllpProbe:
    """Ready when an HL7 v2 message (MSH-11 = T) gets an acknowledgement code in `accept`."""

    port: int = 2575
    message: str = ""
    """HL7 v2 text, segments separated by newlines; empty for a minimal test message."""
    accept: tuple[str, ...] = ("AA", "CA")


@dataclass(frozen=True, slots=True)
class DicomProbe:
    """Ready when a C-ECHO to the application entity `aet` returns status 0x0000."""

    port: int = 104
    aet: str = "ANY-SCP"
    calling_aet: str = "CLEANROOM"


@dataclass(frozen=True, slots=True)
class FhirProbe:
    """Ready when `base`/metadata is a CapabilityStatement that names its status and FHIR version."""

    port: int
    base: str = ""
    """Path of the FHIR base URL, without a slash at its end."""
    tls: bool = False
    pin: str = ""
    """As in `HttpProbe`."""


@dataclass(frozen=True, slots=True)
class LdapProbe:
    """Ready when an anonymous search of the root DSE is answered, with `suffix` among its naming contexts."""

    port: int = 389
    tls: bool = False
    suffix: str = ""
    """Distinguished name of a naming context; empty for any."""


@dataclass(frozen=True, slots=True)
class KerberosProbe:
    """Ready when the key distribution centre of `realm` answers a request for a ticket over TCP."""

    realm: str
    port: int = 88
    principal: str = ""
    """One that must exist there; empty where an answer that it is unknown will do."""


@dataclass(frozen=True, slots=True)
class SmbProbe:
    """Ready when an SMB 2 or 3 dialect is agreed on."""

    port: int = 445


@dataclass(frozen=True, slots=True)
class DnsProbe:
    """Ready when the question for `name` and `record` gets a response code in `accept`.

    NOERROR counts only with a record, since a server that has no data for a name answers NOERROR too.
    """

    name: str
    port: int = 53
    record: str = "A"
    """Type of record, as in a zone file."""
    transport: Protocol = Protocol.UDP
    accept: tuple[str, ...] = ("NOERROR",)


@dataclass(frozen=True, slots=True)
class MssqlProbe:
    """Ready when SQL Server answers a PRELOGIN with its version: it takes logins, to whatever databases are up."""

    port: int = 1433


@dataclass(frozen=True, slots=True)
class GuestAgentProbe:
    """Ready when the QEMU guest agent in the machine answers: its system runs, whatever its application does."""


NetworkProbe = (
    HttpProbe
    | TcpProbe
    | PostgresProbe
    | MllpProbe
    | DicomProbe
    | FhirProbe
    | LdapProbe
    | KerberosProbe
    | SmbProbe
    | DnsProbe
    | MssqlProbe
)
"""Those that connect to a port of the machine."""

ProtocolProbe = NetworkProbe | GuestAgentProbe


@dataclass(frozen=True, slots=True)
class Quorum:
    """Ready when `need` of the probes `of` are: 1 for any of them, their number for all."""

    need: int
    """How many of them have to be ready."""
    of: tuple["Probe", ...]


Probe = ProtocolProbe | Quorum


def protocol_probes(probe: Probe) -> Iterator[ProtocolProbe]:
    """The probes that talk to the machine: `probe` itself, or those within it, in the plan's order."""
    if isinstance(probe, Quorum):
        for part in probe.of:
            yield from protocol_probes(part)
    else:
        yield probe


def endpoints(probe: Probe) -> frozenset[tuple[Protocol, int]]:
    """All that the enclosure has to be able to connect to for `probe`; the guest agent is not on the network."""
    return frozenset(
        (part.transport if isinstance(part, DnsProbe) else Protocol.TCP, part.port)
        for part in protocol_probes(probe)
        if not isinstance(part, GuestAgentProbe)
    )


@dataclass(frozen=True, slots=True)
class Card:
    """A network card of a machine; each has a routed tap of its own."""

    name: str
    """Told apart by it within the machine; "" for the first."""
    mac: str
    """Its MAC address."""
    address: IPv4Address
    """Its IPv4 address."""
    gateway: IPv4Address | None = None
    """Its gateway, answered for by the enclosure; None for none."""
    model: Nic = Nic.VIRTIO
    """What the machine's system has a driver for."""


@dataclass(frozen=True, slots=True)
class Service:
    """One machine of critical care, as the plan describes it."""

    name: str
    title: str
    priority: int
    """1 (first) to 5."""
    address: IPv4Address
    mac: str
    memory: int
    """Bytes of memory."""
    memory_min: int
    """Least memory (bytes) the service still runs with; equal to `memory` when the plan gives none."""
    disks: tuple[Disk, ...]
    ready: tuple[Probe, ...]
    gateway: IPv4Address | None = None
    required: bool = False
    depends_on: tuple[str, ...] = ()
    cpus: int = 1
    firmware: Firmware = Firmware.BIOS
    controller: Controller = Controller.VIRTIO
    nic: Nic = Nic.VIRTIO
    nics: tuple[Card, ...] = ()
    """Its network cards beside the first, which `mac`, `address`, `gateway` and `nic` describe."""
    start: StartKind = StartKind.COLD
    role: str = ""
    guest_agent: bool = False
    ready_timeout: float = 300.0
    """Seconds from first instruction to ready, at most."""
    retries: int = 2
    shutdown_timeout: float = 90.0
    """Seconds for a graceful stop before the machine is killed."""

    @property
    def cards(self) -> tuple[Card, ...]:
        """All its network cards, the first one first."""
        return (Card("", self.mac, self.address, self.gateway, self.nic), *self.nics)


def endpoint_name(service: str, card: str = "") -> str:
    """What a flow calls a network card: "imaging" for the first, "imaging.modalities" for the one of that name."""
    return f"{service}.{card}" if card else service


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections that `origin` may open to `to` once `to` is ready; each is a zone, a service, or one card of it."""

    origin: str
    """Who connects."""
    to: str
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What a lease may open towards the uplink, for `longest` seconds at most."""

    name: str
    origin: str
    """The service that connects."""
    to: IPv4Address
    tcp: tuple[int, ...]
    longest: float
    """Seconds that a lease lasts at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an enclosure restores, and who may talk to whom."""

    enclosure: Enclosure
    """The enclosure itself."""
    ports: tuple[Port, ...]
    """Its network ports, those that flows lead to and the uplink."""
    zones: tuple[Zone, ...]
    """Clean equipment behind its ports."""
    services: tuple[Service, ...]
    """The machines, in the order of the file."""
    flows: tuple[Flow, ...] = ()
    """Who may connect to what; nothing else passes."""
    windows: tuple[Window, ...] = ()
    """What a lease may open."""
    digest: str = ""
    """SHA-256 of the file that the plan was read from, in hexadecimal."""

    def service(self, name: str) -> Service:
        """The service called `name`; KeyError if the plan has none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    def zone(self, name: str) -> Zone:
        """The zone called `name`; KeyError if the plan has none."""
        for zone in self.zones:
            if zone.name == name:
                return zone
        raise KeyError(name)
