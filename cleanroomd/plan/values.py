"""The kinds of value that the keys of a plan file take, as the validator and the JSON schema know them.

The text below each kind is its entry in the reference: what it is called, a colon, and what is valid.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from cleanroomd.plan import units


def as_text(parse: Callable[[object], object], pattern: str = "", **schema: object) -> tuple[object, object]:
    """A string of the file that `parse` checks and turns into what the model keeps."""
    if pattern:
        schema["pattern"] = f"^{pattern}$"
    return PlainValidator(parse), WithJsonSchema({"type": "string", **schema})


Name = Annotated[str, *as_text(units.name, units.NAME)]
"""name: a lower-case letter, then up to 30 lower-case letters, digits or hyphens."""
Text = Annotated[str, *as_text(units.text, minLength=1, maxLength=units.TEXT_AT_MOST)]
"""text for people: 1 to 80 characters on one line."""
Size = Annotated[int, *as_text(units.size, units.SIZE)]
"""size: a whole number and its unit, M, G or T (binary: 1G is 1024M), such as "512M" or "4G"."""
Duration = Annotated[float, *as_text(units.duration, units.DURATION)]
"""duration: hours, minutes and seconds as h, m and s, more than 0s and at most 168h (7 days), such as "90s" or
"1h30m"."""
Mac = Annotated[str, *as_text(units.mac, units.MAC)]
"""MAC address: six pairs of hexadecimal digits with colons, of a single interface, such as "52:54:00:12:34:56"."""
Address = Annotated[IPv4Address, *as_text(units.address, format="ipv4")]
"""IPv4 address: of a single machine, such as "10.1.20.14"."""
Interface = Annotated[IPv4Interface, *as_text(units.interface, units.INTERFACE)]
"""IPv4 address with prefix length: /8 to /30, such as "10.77.0.1/24"."""
IdPath = Annotated[str, *as_text(units.id_path, units.ID_PATH)]
"""udev path: ID_PATH as `udevadm info` prints it, up to 128 characters."""
AeTitle = Annotated[str, *as_text(units.ae_title, units.AE_TITLE)]
"""application entity title: 1 to 16 ASCII characters, no backslash, spaces only within (DICOM PS3.5 6.2)."""
Url = Annotated[units.HttpUrl, *as_text(units.http_url, units.HTTP_URL)]
"""URL without host: http or https, a port unless it is 80 or 443, and a path, such as "https://:8042/system"."""
Identifier = Annotated[str, *as_text(units.identifier, minLength=1, maxLength=63)]
"""name in a database: 1 to 63 bytes."""
Payload = Annotated[bytes, *as_text(units.payload, maxLength=units.MESSAGE_AT_MOST)]
"""any text: up to 16384 characters, sent and compared as UTF-8."""
Evidence = Annotated[bytes, *as_text(units.evidence, minLength=1, maxLength=units.MESSAGE_AT_MOST)]
"""expected text: 1 to 16384 characters, compared as UTF-8."""
BaseUrl = Annotated[units.HttpUrl, *as_text(units.base_url, units.BASE_URL)]
"""base URL without host: like a URL without host, and without a query, such as "http://:8080/fhir"."""
Pin = Annotated[str, *as_text(units.pin, units.PIN)]
"""certificate pin: "sha256:" and 64 hexadecimal digits, in pairs with colons or without."""
Suffix = Annotated[str, *as_text(units.suffix, units.SUFFIX)]
"""distinguished name: parts such as dc=hospital with commas between them (RFC 4514)."""
Realm = Annotated[str, *as_text(units.realm, units.REALM)]
"""Kerberos realm: letters, digits, dots and hyphens, 1 to 128 (RFC 4120 section 6.1)."""
Principal = Annotated[str, *as_text(units.principal, units.PRINCIPAL)]
"""Kerberos principal: its name without the realm."""
DnsName = Annotated[str, *as_text(units.dns_name, units.DNS_NAME)]
"""DNS name: in full, up to 253 characters (RFC 1035 section 2.3.4)."""
Hl7Message = Annotated[str, *as_text(units.hl7_message, minLength=4, maxLength=units.MESSAGE_AT_MOST)]
"""HL7 v2 message: up to 16384 characters that begin with its only MSH segment."""
PortNumber = Annotated[int, Field(ge=1, le=65535)]
"""port number: 1 to 65535."""


class Table(BaseModel):
    """A table of the file: no key that is not declared, no value that is nearly right."""

    model_config = ConfigDict(extra="forbid", strict=True)
