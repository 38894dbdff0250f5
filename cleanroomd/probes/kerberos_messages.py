"""The messages of RFC 4120 appendix A that a probe writes and reads, as pyasn1 has types: values without a value,
cloned to write and given to the decoder to read. Optional fields that no probe looks at are left out of what it writes.
"""

from typing import Any

from pyasn1.type import char, namedtype, tag, univ, useful


def _tagged(number: int, kind: Any) -> Any:
    """`kind` as [number] EXPLICIT, which all fields here are."""
    return kind.subtype(explicitTag=tag.Tag(tag.tagClassContext, tag.tagFormatSimple, number))


def _field(name: str, number: int, kind: Any) -> Any:
    return namedtype.NamedType(name, _tagged(number, kind))


def _optional(name: str, number: int, kind: Any) -> Any:
    return namedtype.OptionalNamedType(name, _tagged(number, kind))


def _sequence(*fields: Any) -> Any:
    return univ.Sequence(componentType=namedtype.NamedTypes(*fields))


def _application(number: int, *fields: Any) -> Any:
    """A whole message, or a part that can stand alone: [APPLICATION number] SEQUENCE."""
    outer = tag.Tag(tag.tagClassApplication, tag.tagFormatConstructed, number)
    return _sequence(*fields).subtype(explicitTag=outer)


def _list_of(kind: Any) -> Any:
    return univ.SequenceOf(componentType=kind)


_INTEGER = univ.Integer()
_OCTETS = univ.OctetString()
_STRING = char.GeneralString()
_TIME = useful.GeneralizedTime()

PRINCIPAL_NAME = _sequence(_field("name-type", 0, _INTEGER), _field("name-string", 1, _list_of(_STRING)))

ENCRYPTED_DATA = _sequence(
    _field("etype", 0, _INTEGER),
    _optional("kvno", 1, _INTEGER),
    _field("cipher", 2, _OCTETS),
)

TICKET = _application(
    1,
    _field("tkt-vno", 0, _INTEGER),
    _field("realm", 1, _STRING),
    _field("sname", 2, PRINCIPAL_NAME),
    _field("enc-part", 3, ENCRYPTED_DATA),
)

PA_DATA = _sequence(_field("padata-type", 1, _INTEGER), _field("padata-value", 2, _OCTETS))

KDC_REQ_BODY = _sequence(
    _field("kdc-options", 0, univ.BitString()),
    _optional("cname", 1, PRINCIPAL_NAME),
    _field("realm", 2, _STRING),
    _optional("sname", 3, PRINCIPAL_NAME),
    _field("till", 5, _TIME),
    _field("nonce", 7, _INTEGER),
    _field("etype", 8, _list_of(_INTEGER)),
)

AS_REQ = _application(
    10,
    _field("pvno", 1, _INTEGER),
    _field("msg-type", 2, _INTEGER),
    _field("req-body", 4, KDC_REQ_BODY),
)

AS_REP = _application(
    11,
    _field("pvno", 0, _INTEGER),
    _field("msg-type", 1, _INTEGER),
    _optional("padata", 2, _list_of(PA_DATA)),
    _field("crealm", 3, _STRING),
    _field("cname", 4, PRINCIPAL_NAME),
    _field("ticket", 5, TICKET),
    _field("enc-part", 6, ENCRYPTED_DATA),
)

KRB_ERROR = _application(
    30,
    _field("pvno", 0, _INTEGER),
    _field("msg-type", 1, _INTEGER),
    _optional("ctime", 2, _TIME),
    _optional("cusec", 3, _INTEGER),
    _field("stime", 4, _TIME),
    _field("susec", 5, _INTEGER),
    _field("error-code", 6, _INTEGER),
    _optional("crealm", 7, _STRING),
    _optional("cname", 8, PRINCIPAL_NAME),
    _field("realm", 9, _STRING),
    _field("sname", 10, PRINCIPAL_NAME),
    _optional("e-text", 11, _STRING),
    _optional("e-data", 12, _OCTETS),
)
