"""What the enclosure itself may open to a machine follows from its `ready`, and from nothing else."""

from dataclasses import replace
from ipaddress import IPv4Network

from cleanroomd.model.plan import DicomProbe, DnsProbe, HttpProbe, KerberosProbe, Probe, Protocol, Quorum, SmbProbe
from cleanroomd.model.posture import Allowance
from cleanroomd.restore.desired import probe_allowances

from .plans import service


def allowances(*probes: Probe) -> list[Allowance]:
    asked = replace(service("identity"), ready=probes)
    return list(probe_allowances(asked, asked.address))


def test_each_port_is_allowed_once_with_its_protocol_and_reason() -> None:
    found = allowances(DicomProbe(4242), HttpProbe(4242), DnsProbe("a.example"))
    assert found == [
        Allowance(
            origin="",
            source=IPv4Network("0.0.0.0/0"),
            target="tap-identity",
            destination=IPv4Network("10.1.0.1/32"),
            protocol=protocol,
            port=port,
            label=f"probe of identity, {protocol} {port}",
        )
        for protocol, port in ((Protocol.TCP, 4242), (Protocol.UDP, 53))
    ]


def test_probes_within_probes_are_allowed_too() -> None:
    directory = Quorum(2, (SmbProbe(), KerberosProbe("A"), DnsProbe("a.example", transport=Protocol.TCP)))
    found = allowances(Quorum(1, (directory, DnsProbe("a.example"))))
    assert {(each.protocol, each.port) for each in found} == {
        (Protocol.TCP, 53),
        (Protocol.UDP, 53),
        (Protocol.TCP, 88),
        (Protocol.TCP, 445),
    }
