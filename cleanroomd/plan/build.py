"""From the tables of a file in which no problem was found to the model's types."""

from collections.abc import Iterable
from typing import TypeVar

from cleanroomd.model import plan as model
from cleanroomd.plan import probes, schema, units

T = TypeVar("T")


def build(file: schema.PlanFile, digest: str) -> model.Plan:
    return model.Plan(
        enclosure=model.Enclosure(
            name=file.enclosure.name,
            language=file.enclosure.language.value,
            rto=file.enclosure.rto,
            quarantine=file.enclosure.quarantine,
        ),
        ports=tuple(
            model.Port(name, mac=port.match.mac, path=port.match.path, address=port.address, gateway=port.gateway)
            for name, port in file.ports.items()
        ),
        zones=tuple(_zone(name, zone) for name, zone in file.zones.items()),
        services=tuple(map(_service, file.services)),
        flows=tuple(
            model.Flow(origin=flow.origin, to=flow.to, tcp=_once(flow.tcp), udp=_once(flow.udp)) for flow in file.flows
        ),
        windows=tuple(
            model.Window(
                name=window.name,
                origin=window.origin,
                to=window.to,
                tcp=_once(window.tcp),
                longest=window.longest,
            )
            for window in file.windows
        ),
        digest=digest,
    )


def _zone(name: str, zone: schema.ZoneTable) -> model.Zone:
    dhcp = model.DhcpRange(zone.dhcp.first, zone.dhcp.last) if zone.dhcp else None
    return model.Zone(name, port=zone.port, address=zone.address, vlan=zone.vlan, dhcp=dhcp)


def _service(service: schema.ServiceTable) -> model.Service:
    return model.Service(
        name=service.name,
        title=service.title or service.name,
        priority=service.priority,
        address=service.address,
        mac=service.mac or units.derived_mac(service.name),
        memory=service.memory,
        memory_min=service.memory_min or service.memory,
        disks=tuple(model.Disk(disk.name, disk.kind) for disk in service.disks),
        ready=_probes(service.ready),
        gateway=service.gateway,
        required=service.required,
        depends_on=tuple(dict.fromkeys(service.depends_on)),
        cpus=service.cpus,
        firmware=service.firmware,
        controller=service.controller,
        nic=service.nic,
        nics=tuple(_card(service.name, card) for card in service.nics),
        start=service.start,
        role=service.role or "",
        guest_agent=service.guest_agent,
        ready_timeout=service.ready_timeout,
        retries=service.retries,
        shutdown_timeout=service.shutdown_timeout,
    )


def _card(service: str, card: schema.CardTable) -> model.Card:
    return model.Card(
        name=card.name,
        mac=card.mac or units.derived_mac(model.endpoint_name(service, card.name)),
        address=card.address,
        gateway=card.gateway,
        model=card.nic,
    )


def _probe(probe: probes.Probe) -> model.Probe:
    match probe:
        case probes.HttpTable():
            return model.HttpProbe(
                probe.http.port,
                path=probe.http.path,
                tls=probe.http.tls,
                expect=probe.expect,
                contains=probe.contains.decode(),
                pin=probe.pin or "",
            )
        case probes.TcpTable():
            return model.TcpProbe(probe.tcp, expect=probe.expect, send=probe.send)
        case probes.PostgresTable():
            return model.PostgresProbe(probe.postgres, database=probe.database, user=probe.user)
        case probes.MllpTable():
            return model.MllpProbe(probe.mllp, message=probe.message or "", accept=_once(probe.accept))
        case probes.DicomTable():
            return model.DicomProbe(probe.dicom, aet=probe.aet, calling_aet=probe.calling_aet)
        case probes.FhirTable():
            return model.FhirProbe(probe.fhir.port, base=probe.fhir.path, tls=probe.fhir.tls, pin=probe.pin or "")
        case probes.LdapTable():
            return model.LdapProbe(probe.ldap, tls=probe.tls, suffix=probe.suffix or "")
        case probes.KerberosTable():
            return model.KerberosProbe(probe.realm, port=probe.kerberos, principal=probe.principal or "")
        case probes.SmbTable():
            return model.SmbProbe(probe.smb)
        case probes.DnsTable():
            return model.DnsProbe(
                probe.name,
                port=probe.dns,
                record=probe.record,
                transport=probe.transport,
                accept=_once(probe.accept),
            )
        case probes.MssqlTable():
            return model.MssqlProbe(probe.mssql)
        case probes.GuestAgentTable():
            return model.GuestAgentProbe()
        case probes.AnyTable():
            return model.Quorum(1, _probes(probe.any))
        case probes.AllTable():
            return model.Quorum(len(probe.all), _probes(probe.all))
        case probes.QuorumTable():
            return model.Quorum(probe.quorum, _probes(probe.of))


def _probes(several: Iterable[probes.Probe]) -> tuple[model.Probe, ...]:
    return tuple(map(_probe, several))


def _once(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
