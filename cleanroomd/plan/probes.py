"""The tables of `ready`: one for each protocol, and those that combine them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from cleanroomd.model.plan import Protocol
from cleanroomd.plan.problems import Suggester, count, quote
from cleanroomd.plan.units import HttpUrl
from cleanroomd.plan.values import (
    AeTitle,
    BaseUrl,
    DnsName,
    Evidence,
    Hl7Message,
    Identifier,
    Payload,
    Pin,
    PortNumber,
    Principal,
    Realm,
    Suffix,
    Table,
    Url,
)

PROBE_TAG = "probe:"
"""Begins the tags of the union of probes, which a validator puts into its locations and no file contains."""

DEEPEST = 4
"""Levels of probes within probes, which nobody can read beyond that."""

PIN = Field(
    None,
    description="Certificate that must be shown, as the SHA-256 of its DER form; any without it. "
    "`openssl x509 -fingerprint -sha256` prints it.",
    examples=["sha256:" + 32 * "0a"],
)


def _require_tls(url: HttpUrl, pin: str | None) -> None:
    if pin and not url.tls:
        raise ValueError("pins a certificate, which only https shows; write https, or leave out pin")


class HttpTable(Table):
    """Ready when a GET gets the expected status and text."""

    http: Url = Field(
        description="URL without host, since the probe goes to the service's own address; http or https.",
        examples=["https://:8042/system"],
    )
    expect: int = Field(200, ge=100, le=599, description="HTTP status that proves it.", examples=[200])
    contains: Payload = Field(
        "",
        validate_default=True,
        description="Text that the body must contain, as UTF-8; any body without it.",
        examples=["Orthanc"],
    )
    pin: Pin | None = PIN

    @model_validator(mode="after")
    def _pinned(self) -> "HttpTable":
        _require_tls(self.http, self.pin)
        return self


class TcpTable(Table):
    """Ready when the expected bytes are read. A bare connection proves nothing."""

    tcp: PortNumber = Field(description="TCP port.", examples=[5000])
    expect: Evidence = Field(description="Text that the answer must contain, as UTF-8.", examples=["220 "])
    send: Payload = Field(
        "",
        validate_default=True,
        description="Text sent first, as UTF-8; nothing without it.",
        examples=["PING\r\n"],
    )


class PostgresTable(Table):
    """Ready when PostgreSQL answers a start-up message as a server that accepts connections does."""

    postgres: PortNumber = Field(description="TCP port.", examples=[5432])
    database: Identifier = Field("postgres", description="Database asked for.", examples=["record"])
    user: Identifier = Field("postgres", description="Role asked for.", examples=["probe"])


class MllpTable(Table):
    """Ready when an HL7 v2 message gets an acknowledgement over MLLP."""

    mllp: PortNumber = Field(description="TCP port.", examples=[2575])
    message: Hl7Message | None = Field(
        None,
        description="HL7 v2 message, segments separated by newlines, always sent with T (training) in "
        "MSH-11; a minimal one without it.",
        examples=["MSH|^~\\&|CLEANROOM||LAB||||ORU^R01|1|T|2.5"],
    )
    accept: list[Literal["AA", "AE", "AR", "CA", "CE", "CR"]] = Field(
        ["AA", "CA"],
        min_length=1,
        description="Acknowledgement codes (MSA-1) that prove it; add AE or AR if a rejection will do.",
        examples=[["AA", "CA"]],
    )


class DicomTable(Table):
    """Ready when a C-ECHO returns status 0x0000."""

    dicom: PortNumber = Field(description="TCP port.", examples=[4242])
    aet: AeTitle = Field("ANY-SCP", description="Application entity title of the service.", examples=["ORTHANC"])
    calling_aet: AeTitle = Field(
        "CLEANROOM",
        description="Application entity title that the probe calls itself.",
        examples=["CLEANROOM"],
    )


class FhirTable(Table):
    """Ready when the FHIR capability statement is given."""

    fhir: BaseUrl = Field(
        description="Base URL without host; the probe asks for /metadata below it; http or https.",
        examples=["https://:8443/fhir"],
    )
    pin: Pin | None = PIN

    @model_validator(mode="after")
    def _pinned(self) -> "FhirTable":
        _require_tls(self.fhir, self.pin)
        return self


class LdapTable(Table):
    """Ready when an anonymous search of the root DSE is answered."""

    ldap: PortNumber = Field(description="TCP port.", examples=[389])
    tls: bool = Field(default=False, description="Whether TLS comes first, as on port 636.", examples=[False])
    suffix: Suffix | None = Field(
        None,
        description="Distinguished name that must be among its naming contexts; any without it.",
        examples=["dc=hospital,dc=example"],
    )


class KerberosTable(Table):
    """Ready when a key distribution centre answers a request for a ticket."""

    kerberos: PortNumber = Field(description="TCP port.", examples=[88])
    realm: Realm = Field(description="Realm, as it is spelt there.", examples=["HOSPITAL.EXAMPLE"])
    principal: Principal | None = Field(
        None,
        description="Principal without realm that must exist, which proves the realm too; without it, an answer that "
        "one is unknown will do.",
        examples=["surgeon"],
    )


class SmbTable(Table):
    """Ready when an SMB 2 or 3 dialect is agreed on."""

    smb: PortNumber = Field(description="TCP port.", examples=[445])


class DnsTable(Table):
    """Ready when a question is answered as expected."""

    dns: PortNumber = Field(description="Port.", examples=[53])
    name: DnsName = Field(description="Name that is asked for, in full.", examples=["dc1.hospital.example"])
    record: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = Field(
        "A", description="Type of record that is asked for.", examples=["SOA"]
    )
    transport: Protocol = Field(
        Protocol.UDP, strict=False, description="What the question goes over.", examples=["tcp"]
    )
    accept: list[Literal["NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL", "NOTIMP", "FORMERR"]] = Field(
        ["NOERROR"],
        min_length=1,
        description="Response codes that prove it; NOERROR does with a record only.",
        examples=[["NOERROR", "NXDOMAIN"]],
    )


class MssqlTable(Table):
    """Ready when Microsoft SQL Server answers a PRELOGIN: it takes logins."""

    mssql: PortNumber = Field(description="TCP port.", examples=[1433])


class GuestAgentTable(Table):
    """Ready when the QEMU guest agent in the machine answers, over a serial port and not over the network.

    It shows that the machine's system runs, not that its application serves: write it beside a probe of a protocol, and
    alone only where there is none to ask.
    """

    guest_agent: bool = Field(
        description="Always true; the service needs `guest_agent = true` of its own too.",
        examples=[True],
        json_schema_extra={"const": True},
    )

    @field_validator("guest_agent")
    @classmethod
    def _asked(cls, value: bool) -> bool:  # noqa: FBT001 pydantic's signature
        if not value:
            raise ValueError("asks nothing; write guest_agent = true, or leave the probe out")
        return value


class AnyTable(Table):
    """Ready when one of several probes is."""

    any: list["Probe"] = Field(
        min_length=1,
        description="Probes of which one is enough, attempted in this order.",
        examples=[[{"dicom": 4242}, {"dicom": 104}]],
    )


class AllTable(Table):
    """Ready when several probes all are; for use within any and quorum, since a service's own must all be anyway."""

    all: list["Probe"] = Field(
        min_length=1,
        description="Probes that must all be answered.",
        examples=[[{"ldap": 389}, {"smb": 445}]],
    )


class QuorumTable(Table):
    """Ready when enough of several probes are."""

    quorum: int = Field(ge=1, description="How many of the probes must be answered.", examples=[1])
    of: list["Probe"] = Field(
        min_length=1,
        description="Probes of which so many are enough, attempted in this order.",
        examples=[[{"ldap": 389}, {"smb": 445}]],
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> "QuorumTable":
        if self.quorum > len(self.of):
            raise ValueError(f"needs {self.quorum} of {count(len(self.of), 'probe')}; write at most {len(self.of)}")
        return self


PROBES: dict[str, type[Table]] = {
    "http": HttpTable,
    "tcp": TcpTable,
    "postgres": PostgresTable,
    "mllp": MllpTable,
    "dicom": DicomTable,
    "fhir": FhirTable,
    "ldap": LdapTable,
    "kerberos": KerberosTable,
    "smb": SmbTable,
    "dns": DnsTable,
    "mssql": MssqlTable,
    "guest_agent": GuestAgentTable,
    "any": AnyTable,
    "all": AllTable,
    "quorum": QuorumTable,
}


def _one_protocol(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{quote(value)} is no probe; write for example {{ dicom = 4242 }}")
    if not _shallow(value, DEEPEST):
        raise ValueError(f"has probes nested more than {DEEPEST} deep; write fewer of any, all and quorum")
    named = [key for key in value if key in PROBES]
    if len(named) > 1:
        raise ValueError(f"names {' and '.join(named)}; write one table for each protocol")
    if not named:
        # The first key is the one that authors write the protocol in.
        meant = Suggester()(next(iter(value), ""), PROBES)
        choice = f"; write one of {', '.join(PROBES)}"
        raise ValueError(f"names no protocol{meant or choice}")
    return value


def _shallow(value: object, levels: int) -> bool:
    """Whether tables within lists within tables end after so many levels."""
    lists = [each for each in value.values() if isinstance(each, list)] if isinstance(value, dict) else []
    tables = [part for each in lists for part in each if isinstance(part, dict)]
    return levels > 0 and all(_shallow(part, levels - 1) for part in tables)


def _protocol(value: object) -> str:
    named = (key for key in PROBES if isinstance(value, dict) and key in value)
    return PROBE_TAG + next(named, "")


Probe = Annotated[
    Annotated[HttpTable, Tag("probe:http")]
    | Annotated[TcpTable, Tag("probe:tcp")]
    | Annotated[PostgresTable, Tag("probe:postgres")]
    | Annotated[MllpTable, Tag("probe:mllp")]
    | Annotated[DicomTable, Tag("probe:dicom")]
    | Annotated[FhirTable, Tag("probe:fhir")]
    | Annotated[LdapTable, Tag("probe:ldap")]
    | Annotated[KerberosTable, Tag("probe:kerberos")]
    | Annotated[SmbTable, Tag("probe:smb")]
    | Annotated[DnsTable, Tag("probe:dns")]
    | Annotated[MssqlTable, Tag("probe:mssql")]
    | Annotated[GuestAgentTable, Tag("probe:guest_agent")]
    | Annotated[AnyTable, Tag("probe:any")]
    | Annotated[AllTable, Tag("probe:all")]
    | Annotated[QuorumTable, Tag("probe:quorum")],
    Discriminator(_protocol),
    BeforeValidator(_one_protocol),
]

for _combination in (AnyTable, AllTable, QuorumTable):
    _combination.model_rebuild()
