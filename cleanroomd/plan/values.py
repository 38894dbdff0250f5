"""The kinds of value that the keys of a plan file take, as the validator and the JSON schema know them."""

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
Text = Annotated[str, *as_text(units.text, minLength=1, maxLength=units.TEXT_AT_MOST)]
Size = Annotated[int, *as_text(units.size, units.SIZE)]
Duration = Annotated[float, *as_text(units.duration, units.DURATION)]
Mac = Annotated[str, *as_text(units.mac, units.MAC)]
Address = Annotated[IPv4Address, *as_text(units.address, format="ipv4")]
Interface = Annotated[IPv4Interface, *as_text(units.interface, units.INTERFACE)]
IdPath = Annotated[str, *as_text(units.id_path, units.ID_PATH)]
AeTitle = Annotated[str, *as_text(units.ae_title, units.AE_TITLE)]
Url = Annotated[units.HttpUrl, *as_text(units.http_url, units.HTTP_URL)]
Identifier = Annotated[str, *as_text(units.identifier, minLength=1, maxLength=63)]
Payload = Annotated[bytes, *as_text(units.payload, maxLength=units.MESSAGE_AT_MOST)]
Evidence = Annotated[bytes, *as_text(units.evidence, minLength=1, maxLength=units.MESSAGE_AT_MOST)]
BaseUrl = Annotated[units.HttpUrl, *as_text(units.base_url, units.BASE_URL)]
Pin = Annotated[str, *as_text(units.pin, units.PIN)]
Suffix = Annotated[str, *as_text(units.suffix, units.SUFFIX)]
Realm = Annotated[str, *as_text(units.realm, units.REALM)]
Principal = Annotated[str, *as_text(units.principal, units.PRINCIPAL)]
DnsName = Annotated[str, *as_text(units.dns_name, units.DNS_NAME)]
Hl7Message = Annotated[str, *as_text(units.hl7_message, maxLength=units.MESSAGE_AT_MOST)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class Table(BaseModel):
    """A table of the file: no key that is not declared, no value that is nearly right."""

    model_config = ConfigDict(extra="forbid", strict=True)
