"""How a plan writes names, sizes, durations and addresses: each function takes one value of the file, checks
it, and returns it as the model keeps it, or raises ValueError with a message that says what to write.
"""

import hashlib
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from typing import NamedTuple

from cleanroomd.plan.problems import is_text, quote

NAME = r"[a-z][a-z0-9-]{0,30}"
"""Names become parts of file, interface and unit names, so they can hold nothing that those cannot."""
SIZE = r"([1-9][0-9]{0,5})([MGT])"
DURATION = r"(?=[0-9])(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?"
MAC = r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"
ID_PATH = r"[A-Za-z0-9_.:+@-]{1,128}"
INTERFACE = r"[0-9.]{7,15}/[0-9]{1,2}"
AE_TITLE = r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?"
"""DICOM PS3.5 6.2, value representation AE: up to 16 characters, no backslash, spaces only within."""
HTTP_URL = r"(https?)://([^/:?#@\s]*)(?::([0-9]{1,5}))?(/[!-\"$-~]{0,1023})?"
BASE_URL = r"(https?)://([^/:?#@\s]*)(?::([0-9]{1,5}))?(/[!-\"$->@-~]{0,1023})?"
PIN = r"[Ss][Hh][Aa]256:(?:[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31})"
_RDN = r"[A-Za-z][A-Za-z0-9.-]{0,63} ?= ?(?:[^,=\\]|\\.){1,128}"
SUFFIX = rf"{_RDN}(?:, ?{_RDN}){{0,31}}"
"""A distinguished name as RFC 4514 writes them, of parts with one attribute each."""
REALM = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,126}[A-Za-z0-9])?"
"""RFC 4120 section 6.1, names in the style of domains."""
PRINCIPAL = r"[!-.0-?A-\[\]-~]{1,128}(?:/[!-.0-?A-\[\]-~]{1,128}){0,3}"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DNS_NAME = rf"{_LABEL}(?:\.{_LABEL}){{0,31}}\.?"
"""RFC 1035 section 2.3.4, and the underscores of service records; 253 characters at most."""
HL7_START = r"MSH[!-/:-@\[-`{-~]"

LONGEST = 7 * 24 * 3600
TEXT_AT_MOST = 80
MESSAGE_AT_MOST = 16384

_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class HttpUrl(NamedTuple):
    tls: bool
    port: int
    path: str


def name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(NAME, value):
        return value
    raise _wrong(value, "no name", "write a lower-case letter, then up to 30 lower-case letters, digits or hyphens")


def text(value: object) -> str:
    """A text for people, of 1 to 80 characters on one line."""
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, "no text", f"write 1 to {TEXT_AT_MOST} characters in quotes")
    if len(value) > TEXT_AT_MOST:
        raise ValueError(f"has {len(value)} characters; write {TEXT_AT_MOST} at most")
    if not all(map(is_text, value)):
        raise _wrong(value, "not plain text", "remove line breaks and control characters")
    return value


def size(value: object) -> int:
    """ "512M", "4G" or "1T", in binary units, as bytes."""
    found = re.fullmatch(SIZE, value) if isinstance(value, str) else None
    if not found:
        raise _wrong(value, "no size", 'write for example "12G" or "512M"')
    return int(found[1]) * _UNITS[found[2]]


def duration(value: object) -> float:
    """ "90s", "3m" or "1h30m" as seconds, more than 0 and at most 7 days."""
    found = re.fullmatch(DURATION, value) if isinstance(value, str) else None
    if not found:
        raise _wrong(value, "no duration", 'write for example "90s", "3m" or "1h30m"')
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= LONGEST:
        raise _wrong(value, "out of range", 'write more than "0s" and at most "168h"')
    return float(total)


def mac(value: object) -> str:
    """A unicast hardware address, in lower case."""
    if not isinstance(value, str) or not re.fullmatch(MAC, value):
        raise _wrong(value, "no MAC address", 'write for example "52:54:00:12:34:56"')
    if int(value[:2], 16) & 1 or not int(value.replace(":", ""), 16):
        raise _wrong(value, "the MAC address of no single interface", "copy it from the machine's old configuration")
    return value.lower()


def derived_mac(service: str) -> str:
    """The MAC of a service for which the plan gives none: always the same, locally administered, unicast."""
    digest = hashlib.sha256(service.encode()).digest()
    return bytes((0x02, *digest[:5])).hex(":")


def address(value: object) -> IPv4Address:
    """The IPv4 address of one host, as text without a prefix length."""
    if not isinstance(value, str):
        raise _wrong(value, "no IPv4 address", 'write for example "10.1.20.14"')
    try:
        parsed = IPv4Address(value)
    except AddressValueError:
        raise _wrong(value, "no IPv4 address", 'write for example "10.1.20.14"') from None
    return _of_host(parsed)


def interface(value: object) -> IPv4Interface:
    """An IPv4 address of the enclosure with the prefix length of its network, 8 to 30."""
    if not isinstance(value, str) or not re.fullmatch(INTERFACE, value):
        raise _wrong(value, "no IPv4 address with a prefix length", 'write for example "10.77.0.1/24"')
    try:
        parsed = IPv4Interface(value)
    except ValueError:
        raise _wrong(value, "no IPv4 address with a prefix length", 'write for example "10.77.0.1/24"') from None
    if not 8 <= parsed.network.prefixlen <= 30:
        raise _wrong(value, "no network of a usable size", "write a prefix length from /8 to /30")
    _of_host(parsed.ip)
    if parsed.ip in (parsed.network.network_address, parsed.network.broadcast_address):
        first = f"{parsed.network[1]}/{parsed.network.prefixlen}"
        raise _wrong(value, "no host's address in its network", f'write for example "{first}"')
    return parsed


def id_path(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(ID_PATH, value):
        return value
    raise _wrong(value, "no udev path", 'copy ID_PATH of `udevadm info`, for example "pci-0000:01:00.0"')


def ae_title(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(AE_TITLE, value):
        return value
    raise _wrong(value, "no application entity title", 'write 1 to 16 ASCII characters, for example "ORTHANC"')


def http_url(value: object) -> HttpUrl:
    """A URL without host, since a probe only ever goes to the address of its own service."""
    return _url(value, HTTP_URL, "http://:8042/system")


def base_url(value: object) -> HttpUrl:
    """A URL below which others are, without query; its path has no slash at its end, and is empty for the root."""
    url = _url(value, BASE_URL, "http://:8080/fhir")
    return url._replace(path=url.path.rstrip("/"))


def _url(value: object, pattern: str, example: str) -> HttpUrl:
    found = re.fullmatch(pattern, value) if isinstance(value, str) else None
    if not found:
        raise _wrong(value, "no URL of a probe", f'write for example "{example}"')
    scheme, host, port, where = found.groups()
    if host:
        raise _wrong(value, "not this service's own", f'leave out the host: "{scheme}://:{port or 80}{where or "/"}"')
    number = int(port or (443 if scheme == "https" else 80))
    if not 0 < number < 65536:
        raise _wrong(value, "no URL of a probe", "write a port from 1 to 65535")
    return HttpUrl(tls=scheme == "https", port=number, path=where or "/")


def pin(value: object) -> str:
    """ "sha256:" and the digest of a certificate, with or without colons, as 64 lower-case hexadecimal digits."""
    if isinstance(value, str) and re.fullmatch(PIN, value):
        return value.lower().removeprefix("sha256:").replace(":", "")
    raise _wrong(value, "no pin", 'write "sha256:" and what `openssl x509 -fingerprint -sha256` prints')


def suffix(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(SUFFIX, value) and all(map(is_text, value)):
        return value
    raise _wrong(value, "no distinguished name", 'write for example "dc=hospital,dc=example"')


def realm(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(REALM, value):
        return value
    raise _wrong(value, "no realm", 'write for example "HOSPITAL.EXAMPLE"')


def principal(value: object) -> str:
    """A principal without its realm."""
    if isinstance(value, str) and re.fullmatch(PRINCIPAL, value):
        return value
    raise _wrong(value, "no principal", 'write its name without the realm, for example "surgeon"')


def dns_name(value: object) -> str:
    """A name in full, without the dot at its end."""
    if isinstance(value, str) and re.fullmatch(DNS_NAME, value) and len(value) <= 253:
        return value.removesuffix(".")
    raise _wrong(value, "no name in DNS", 'write it in full, for example "dc1.hospital.example"')


def identifier(value: object) -> str:
    """A database or role name; PostgreSQL keeps 63 bytes of it (NAMEDATALEN - 1)."""
    if isinstance(value, str) and 0 < len(value.encode()) <= 63 and all(map(is_text, value)):
        return value
    raise _wrong(value, "no name in a database", "write 1 to 63 characters")


def payload(value: object) -> bytes:
    """Text that a probe sends or looks for, as UTF-8."""
    if isinstance(value, str) and len(value) <= MESSAGE_AT_MOST:
        return value.encode()
    raise _wrong(value, "no text to send or expect", f"write up to {MESSAGE_AT_MOST} characters in quotes")


def evidence(value: object) -> bytes:
    """Like `payload`, but not empty: every answer contains nothing."""
    if value == "":
        raise ValueError("is empty, so any answer would do; write what a working service answers")
    return payload(value)


def hl7_message(value: object) -> str:
    """One HL7 v2 message; the probe frames it, and marks it as training (MSH-11 = T) whatever it says."""
    if not isinstance(value, str) or not re.match(HL7_START, value) or len(value) > MESSAGE_AT_MOST:
        raise _wrong(value, "no HL7 v2 message", 'write segments separated by \\n that begin with "MSH|^~\\\\&|"')
    if not all(c in "\r\n" or is_text(c) for c in value):
        raise _wrong(value, "no HL7 v2 message", "remove control characters; the probe adds the MLLP frame")
    if re.search(r"[\r\n](?:MSH|BHS|FHS)", value):
        raise _wrong(value, "more than one HL7 v2 message", "write one that begins with its only MSH segment")
    return value


def _of_host(parsed: IPv4Address) -> IPv4Address:
    """Refuses what no machine can own: 0/8, loopback, link-local, multicast and above (RFC 6890)."""
    first = int(parsed) >> 24
    if first in (0, 127) or first >= 224 or parsed.is_link_local:
        raise _wrong(str(parsed), "no address that a machine can have", "write the one that it always had")
    return parsed


def _wrong(value: object, what: str, way_out: str) -> ValueError:
    return ValueError(f"{quote(value)} is {what}; {way_out}")
