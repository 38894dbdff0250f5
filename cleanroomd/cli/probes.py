"""Readiness probes of a plan, in words."""

import json
import re
from typing import Any

from cleanroomd.model.plan import (
    DicomProbe,
    DnsProbe,
    FhirProbe,
    GuestAgentProbe,
    HttpProbe,
    KerberosProbe,
    LdapProbe,
    MllpProbe,
    MssqlProbe,
    PostgresProbe,
    Probe,
    Quorum,
    SmbProbe,
    TcpProbe,
)


def protocol_name(kind: type[Any]) -> str:
    """What JSON calls a kind of probe: "dicom", "quorum"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.removesuffix("Probe")).lower()


def describe_probe(probe: Probe) -> str:
    """What has to be answered, as a part of a sentence: "DICOM C-ECHO to ORTHANC on 4242 answers"."""
    match probe:
        case HttpProbe():
            scheme = "HTTPS" if probe.tls else "HTTP"
            text = f" and contains {_quoted(probe.contains)}" if probe.contains else ""
            return f"{scheme} {probe.path} on {probe.port} answers {probe.expect}{text}{_pinned(probe.pin)}"
        case TcpProbe():
            return f"TCP {probe.port} answers {_quoted(probe.expect.decode())}"
        case PostgresProbe():
            return f"PostgreSQL on {probe.port} accepts connections to {probe.database}"
        case MllpProbe():
            return f"MLLP on {probe.port} acknowledges ({', '.join(probe.accept)})"
        case DicomProbe():
            return f"DICOM C-ECHO to {probe.aet} on {probe.port} answers"
        case FhirProbe():
            scheme = "HTTPS" if probe.tls else "HTTP"
            where = probe.base or "/"
            return f"FHIR over {scheme} {where} on {probe.port} states its capabilities{_pinned(probe.pin)}"
        case LdapProbe():
            scheme = "LDAPS" if probe.tls else "LDAP"
            return f"{scheme} on {probe.port} answers" + (f" and holds {probe.suffix}" if probe.suffix else "")
        case KerberosProbe():
            known = f" and knows {probe.principal}" if probe.principal else ""
            return f"Kerberos on {probe.port} answers for {probe.realm}{known}"
        case SmbProbe():
            return f"SMB on {probe.port} agrees on a dialect"
        case DnsProbe():
            codes = ", ".join(probe.accept)
            return f"DNS on {probe.transport} {probe.port} answers {probe.record} of {probe.name} ({codes})"
        case MssqlProbe():
            return f"SQL Server on {probe.port} answers"
        case GuestAgentProbe():
            return "the guest agent answers (the system runs, which does not show that an application serves)"
        case Quorum():
            return f"{_share(probe)} of ({'; '.join(map(describe_probe, probe.of))})"


def _share(probe: Quorum) -> str:
    if probe.need == len(probe.of):
        return "all"
    return "any" if probe.need == 1 else str(probe.need)


def _pinned(pin: str) -> str:
    return f" with certificate sha256:{pin}" if pin else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
