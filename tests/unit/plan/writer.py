"""Plans for tests: random valid ones, and TOML text of which every key's line is known."""

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cleanroomd.model.plan import (
    Controller,
    DhcpRange,
    DicomProbe,
    Disk,
    DiskKind,
    DnsProbe,
    Enclosure,
    FhirProbe,
    Firmware,
    Flow,
    GuestAgentProbe,
    HttpProbe,
    KerberosProbe,
    LdapProbe,
    MllpProbe,
    MssqlProbe,
    Nic,
    Plan,
    Port,
    PostgresProbe,
    Probe,
    Protocol,
    Quorum,
    Service,
    SmbProbe,
    StartKind,
    TcpProbe,
    Window,
    Zone,
    protocol_probes,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For machines that are busy with something else."""

Raw = dict[str, Any]
Lines = dict[tuple[str | int, ...], int]

names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True).filter(lambda name: name not in ("uplink", "care"))
texts = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=80).filter(str.strip)
payloads = st.text(max_size=20)
port_numbers = st.integers(1, 65535)
seconds = st.integers(1, 7 * 24 * 3600).map(float)
sizes = st.builds(lambda number, shift: number << shift, st.integers(1, 9999), st.sampled_from([20, 30, 40]))

pins = st.sampled_from(["", "0a" * 32])
single_probes: st.SearchStrategy[Probe] = st.one_of(
    st.builds(
        HttpProbe,
        port_numbers,
        path=st.from_regex(r"/[a-z?=&%]{0,20}", fullmatch=True),
        tls=st.booleans(),
        expect=st.integers(100, 599),
        contains=payloads,
    ),
    st.builds(HttpProbe, port_numbers, tls=st.just(True), pin=pins),
    st.builds(TcpProbe, port_numbers, expect=payloads.filter(bool).map(str.encode), send=payloads.map(str.encode)),
    st.builds(PostgresProbe, port_numbers, database=names, user=names),
    st.builds(
        MllpProbe,
        port_numbers,
        message=st.sampled_from(["", "MSH|^~\\&|A||B||||ORU^R01|1|T|2.5\nPID|1"]),
        accept=st.sampled_from([("AA",), ("AA", "CA", "AR")]),
    ),
    st.builds(DicomProbe, port_numbers, aet=st.sampled_from(["A", "ORTHANC", "A B"]), calling_aet=st.just("ME")),
    st.builds(FhirProbe, port_numbers, base=st.sampled_from(["", "/fhir", "/a/b"]), tls=st.just(True), pin=pins),
    st.builds(FhirProbe, port_numbers),
    st.builds(LdapProbe, port_numbers, tls=st.booleans(), suffix=st.sampled_from(["", "dc=hospital, o=A\\, B"])),
    st.builds(
        KerberosProbe, st.just("A.EXAMPLE"), port=port_numbers, principal=st.sampled_from(["", "host/a.example"])
    ),
    st.builds(SmbProbe, port_numbers),
    st.builds(
        DnsProbe,
        st.sampled_from(["a", "_ldap._tcp.hospital.example"]),
        port=port_numbers,
        record=st.sampled_from(["A", "SRV"]),
        transport=st.sampled_from(Protocol),
        accept=st.sampled_from([("NOERROR",), ("NXDOMAIN", "REFUSED")]),
    ),
    st.builds(MssqlProbe, port_numbers),
    st.builds(GuestAgentProbe),
)


def quorums(parts: st.SearchStrategy[Probe]) -> st.SearchStrategy[Probe]:
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return several.flatmap(lambda of: st.builds(Quorum, st.integers(1, len(of)), st.just(of)))


probes: st.SearchStrategy[Probe] = single_probes | quorums(
    single_probes | quorums(single_probes | quorums(single_probes))
)


@st.composite
def services(draw: st.DrawFn, number: int, name: str, before: list[str]) -> Service:
    ready = tuple(draw(st.lists(probes, min_size=1, max_size=3)))
    asks_agent = any(isinstance(part, GuestAgentProbe) for probe in ready for part in protocol_probes(probe))
    memory, least = sorted((draw(sizes), draw(sizes)), reverse=True)
    return Service(
        name=name,
        title=draw(texts),
        priority=draw(st.integers(1, 5)),
        address=IPv4Address("10.1.0.0") + number,
        mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        memory=memory,
        memory_min=least,
        disks=(
            Disk(f"disk-{number}"),
            *(Disk(f"more-{number}-{extra}", DiskKind.DATA) for extra in range(draw(st.integers(0, 2)))),
        ),
        ready=ready,
        gateway=draw(st.none() | st.just(IPv4Address("10.200.0.1"))),
        required=draw(st.booleans()),
        depends_on=tuple(draw(st.lists(st.sampled_from(before), unique=True))) if before else (),
        cpus=draw(st.integers(1, 64)),
        firmware=draw(st.sampled_from(Firmware)),
        controller=draw(st.sampled_from(Controller)),
        nic=draw(st.sampled_from(Nic)),
        start=draw(st.sampled_from(StartKind)),
        guest_agent=asks_agent or draw(st.booleans()),
        ready_timeout=draw(seconds),
        retries=draw(st.integers(0, 10)),
        shutdown_timeout=draw(seconds),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Valid plans: up to 6 services in any order of dependencies, up to 3 zones, flows and windows."""
    used = draw(st.lists(names, min_size=1, max_size=9, unique=True))
    split = draw(st.integers(1, min(6, len(used))))
    machines = [draw(services(number, name, used[: number - 1])) for number, name in enumerate(used[:split], 1)]
    zones = [
        Zone(
            name,
            port="care",
            address=IPv4Interface(f"10.77.{number}.1/24"),
            vlan=number + 1,
            dhcp=draw(
                st.none() | st.just(DhcpRange(IPv4Address(f"10.77.{number}.9"), IPv4Address(f"10.77.{number}.20")))
            ),
        )
        for number, name in enumerate(used[split:])
    ]
    ends = [*(service.name for service in machines), *(zone.name for zone in zones)]
    pairs = st.tuples(st.sampled_from(ends), st.sampled_from(ends)).filter(lambda pair: pair[0] != pair[1])
    some_ports = st.lists(port_numbers, min_size=1, max_size=3, unique=True).map(tuple)
    flows = [
        Flow(*draw(pairs), tcp=draw(some_ports), udp=draw(st.just(()) | some_ports))
        for _ in range(draw(st.integers(0, 3)) if len(ends) > 1 else 0)
    ]
    windows = [
        Window(
            f"window-{number}",
            draw(st.sampled_from(ends)),
            IPv4Address("192.168.40.9"),
            draw(some_ports),
            draw(seconds),
        )
        for number in range(draw(st.integers(0, 2)))
    ]
    return Plan(
        enclosure=Enclosure(draw(texts), draw(st.sampled_from(["fr", "en"])), draw(st.none() | seconds)),
        ports=(
            Port("uplink", path="pci-1", address=IPv4Interface("192.168.40.5/24"), gateway=IPv4Address("192.168.40.1")),
            Port("care", mac="52:54:00:00:00:02"),
        ),
        zones=tuple(zones),
        services=tuple(draw(st.permutations(machines))),
        flows=tuple(flows),
        windows=tuple(windows),
    )


def raw(plan: Plan) -> Raw:
    """The document that spells the plan, every key written out."""
    return {
        "enclosure": _given(name=plan.enclosure.name, language=plan.enclosure.language, rto=_time(plan.enclosure.rto)),
        "ports": {
            port.name: _given(
                match=_given(mac=port.mac, path=port.path), address=_str(port.address), gateway=_str(port.gateway)
            )
            for port in plan.ports
        },
        "zones": {
            zone.name: _given(
                port=zone.port,
                address=_str(zone.address),
                vlan=zone.vlan,
                dhcp=zone.dhcp and {"from": str(zone.dhcp.first), "to": str(zone.dhcp.last)},
            )
            for zone in plan.zones
        },
        "service": [_service(service) for service in plan.services],
        "flow": [
            {"from": flow.origin, "to": flow.to, "tcp": list(flow.tcp), "udp": list(flow.udp)} for flow in plan.flows
        ],
        "window": [
            {
                "name": window.name,
                "from": window.origin,
                "to": str(window.to),
                "tcp": list(window.tcp),
                "max": _time(window.longest),
            }
            for window in plan.windows
        ],
    }


def _service(service: Service) -> Raw:
    return _given(
        name=service.name,
        title=service.title,
        priority=service.priority,
        required=service.required,
        depends_on=list(service.depends_on),
        address=str(service.address),
        gateway=_str(service.gateway),
        mac=service.mac,
        memory=_size(service.memory),
        memory_min=_size(service.memory_min),
        cpus=service.cpus,
        disks=[
            disk.name if disk.kind is DiskKind.SYSTEM else {"name": disk.name, "kind": disk.kind.value}
            for disk in service.disks
        ],
        firmware=service.firmware.value,
        controller=service.controller.value,
        nic=service.nic.value,
        start=service.start.value,
        guest_agent=service.guest_agent,
        ready=[_probe(probe) for probe in service.ready],
        ready_timeout=_time(service.ready_timeout),
        retries=service.retries,
        shutdown_timeout=_time(service.shutdown_timeout),
    )


def _probe(probe: Probe) -> Raw:
    match probe:
        case HttpProbe():
            url = f"{'https' if probe.tls else 'http'}://:{probe.port}{probe.path}"
            return _given(http=url, expect=probe.expect, contains=probe.contains, pin=_pin(probe.pin))
        case TcpProbe():
            return {"tcp": probe.port, "expect": probe.expect.decode(), "send": probe.send.decode()}
        case PostgresProbe():
            return {"postgres": probe.port, "database": probe.database, "user": probe.user}
        case MllpProbe():
            return _given(mllp=probe.port, message=probe.message or None, accept=list(probe.accept))
        case DicomProbe():
            return {"dicom": probe.port, "aet": probe.aet, "calling_aet": probe.calling_aet}
        case FhirProbe():
            url = f"{'https' if probe.tls else 'http'}://:{probe.port}{probe.base}"
            return _given(fhir=url, pin=_pin(probe.pin))
        case LdapProbe():
            return _given(ldap=probe.port, tls=probe.tls, suffix=probe.suffix or None)
        case KerberosProbe():
            return _given(kerberos=probe.port, realm=probe.realm, principal=probe.principal or None)
        case SmbProbe():
            return {"smb": probe.port}
        case DnsProbe():
            question = {"dns": probe.port, "name": probe.name, "record": probe.record}
            return {**question, "transport": probe.transport.value, "accept": list(probe.accept)}
        case MssqlProbe():
            return {"mssql": probe.port}
        case GuestAgentProbe():
            return {"guest_agent": True}
        case Quorum():
            of = [_probe(part) for part in probe.of]
            if probe.need == len(of):
                return {"all": of}
            return {"any": of} if probe.need == 1 else {"quorum": probe.need, "of": of}


def _pin(digest: str) -> str | None:
    return f"sha256:{digest}" if digest else None


def _given(**values: object) -> Raw:
    return {key: value for key, value in values.items() if value is not None}


def _str(value: object) -> str | None:
    return None if value is None else str(value)


def _size(value: int) -> str:
    return next(
        f"{value >> shift}{unit}" for shift, unit in ((40, "T"), (30, "G"), (20, "M")) if not value % (1 << shift)
    )


def _time(value: float | None) -> str | None:
    if value is None:
        return None
    minutes, rest = divmod(int(value), 60)
    return f"{minutes // 60}h{minutes % 60}m{rest}s"


class Writer:
    """Writes a document as people do, or otherwise as TOML allows; `lines` has where each key went."""

    def __init__(self, *, spread: bool = False, inline: bool = False, dotted: bool = False) -> None:
        self.lines: Lines = {}
        self._spread = spread
        """Each element of a list on a line of its own, with comments between."""
        self._inline = inline
        """Sections as inline tables."""
        self._dotted = dotted
        """Tables in sections by dotted keys."""
        self._out = ""

    def write(self, document: Raw) -> bytes:
        self._out = "# a plan\n"
        # Keys of the root come before the first header.
        plain = {key: value for key, value in document.items() if self._inline or not self._is_section(value)}
        self._pairs(plain, ())
        for key, value in document.items():
            if key in plain:
                continue
            for part, table in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict) and not all(isinstance(each, dict) for each in value.values()):
                    self._header(f"[{_key(key)}]", (key,))
                    self._pairs(value, (key,))
                    break
                self._header(
                    f"[{_key(key)}.{_key(part)}]" if isinstance(value, dict) else f"[[{_key(key)}]]", (key, part)
                )
                self._pairs(table, (key, part))
        return self._out.encode()

    @staticmethod
    def _is_section(value: object) -> bool:
        if isinstance(value, dict):
            return bool(value)
        return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)

    def _header(self, header: str, loc: tuple[str | int, ...]) -> None:
        self._out += "\n"
        self.lines[loc] = self._line()
        self._out += f"{header}\n"

    def _pairs(self, table: Raw, loc: tuple[str | int, ...]) -> None:
        for key, value in table.items():
            if self._dotted and isinstance(value, dict) and value:
                for inner, nested in value.items():
                    self.lines.setdefault((*loc, key), self._line())
                    self._pair(f"{_key(key)} . {_key(inner)}", nested, (*loc, key, inner))
            else:
                self._pair(_key(key), value, (*loc, key))

    def _pair(self, key: str, value: object, loc: tuple[str | int, ...]) -> None:
        self.lines[loc] = self._line()
        self._out += f"{key} = "
        self._value(value, loc)
        self._out += "  # said\n"

    def _value(self, value: object, loc: tuple[str | int, ...]) -> None:
        match value:
            case bool():
                self._out += "true" if value else "false"
            case str():
                self._out += _quoted(value)
            case list():
                self._out += "["
                for index, element in enumerate(value):
                    self._out += "\n  # one more\n  " if self._spread else ""
                    self.lines[*loc, index] = self._line()
                    self._value(element, (*loc, index))
                    self._out += ", "
                self._out += "]"
            case dict():
                self._out += "{ "
                for index, (key, nested) in enumerate(value.items()):
                    self._out += ", " if index else ""
                    self.lines[*loc, key] = self._line()
                    self._out += f"{_key(key)} = "
                    self._value(nested, (*loc, key))
                self._out += " }"
            case _:
                self._out += str(value)

    def _line(self) -> int:
        return self._out.count("\n") + 1


def _key(key: object) -> str:
    text = str(key)
    return text if text and all(c.isascii() and (c.isalnum() or c in "-_") for c in text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = (f"\\u{ord(c):04X}" if ord(c) < 32 or ord(c) == 127 or c in '"\\' else c for c in text)
    return f'"{"".join(escaped)}"'
