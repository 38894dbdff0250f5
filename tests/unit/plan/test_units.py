"""Single values: what each may look like, to the last character."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.plan import units
from cleanroomd.plan.problems import quote
from cleanroomd.plan.units import HttpUrl
from tests.unit.plan.writer import unhurried

Parse = Callable[[object], object]


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (units.name, "a", "a"),
        (units.name, "a" * 31, "a" * 31),
        (units.name, "record-db2", "record-db2"),
        (units.text, "Prêt « GHT »\u00a0: 1\u202f000", "Prêt « GHT »\u00a0: 1\u202f000"),
        (units.size, "1M", 1 << 20),
        (units.size, "12G", 12 << 30),
        (units.size, "2T", 2 << 40),
        (units.duration, "90s", 90.0),
        (units.duration, "3m", 180.0),
        (units.duration, "1h30m", 5400.0),
        (units.duration, "1h1s", 3601.0),
        (units.duration, "168h", 604800.0),
        (units.mac, "52:54:00:AB:cd:01", "52:54:00:ab:cd:01"),
        (units.address, "10.1.20.14", IPv4Address("10.1.20.14")),
        (units.interface, "10.77.0.1/24", IPv4Interface("10.77.0.1/24")),
        (units.interface, "10.0.0.1/8", IPv4Interface("10.0.0.1/8")),
        (units.interface, "10.0.0.1/30", IPv4Interface("10.0.0.1/30")),
        (units.id_path, "pci-0000:01:00.0-usb-0:1.2:1.0", "pci-0000:01:00.0-usb-0:1.2:1.0"),
        (units.ae_title, "ANY-SCP", "ANY-SCP"),
        (units.ae_title, "A" * 16, "A" * 16),
        (units.http_url, "http://:8042/system", HttpUrl(tls=False, port=8042, path="/system")),
        (units.http_url, "https://:8443/a?b=c%20d", HttpUrl(tls=True, port=8443, path="/a?b=c%20d")),
        (units.http_url, "http://", HttpUrl(tls=False, port=80, path="/")),
        (units.http_url, "https:///login", HttpUrl(tls=True, port=443, path="/login")),
        (units.base_url, "https://:8443/fhir/r4/", HttpUrl(tls=True, port=8443, path="/fhir/r4")),
        (units.base_url, "http://:8080", HttpUrl(tls=False, port=8080, path="")),
        (units.pin, "sha256:" + "0a" * 32, "0a" * 32),
        (units.pin, "SHA256:" + ":".join(["0A"] * 32), "0a" * 32),
        (units.suffix, "dc=hospital, O = Santé", "dc=hospital, O = Santé"),
        (units.suffix, "o=A\\, B", "o=A\\, B"),
        (units.realm, "HOSPITAL.EXAMPLE", "HOSPITAL.EXAMPLE"),
        (units.principal, "host/dc1.hospital.example", "host/dc1.hospital.example"),
        (units.dns_name, "_ldap._tcp.hospital.example.", "_ldap._tcp.hospital.example"),
        (units.dns_name, "a" * 63, "a" * 63),
        (units.identifier, "dossier patient", "dossier patient"),
        (units.payload, "é\r\n", b"\xc3\xa9\r\n"),
        (units.payload, "", b""),
        (units.evidence, "+OK", b"+OK"),
        (units.hl7_message, "MSH|^~\\&|A\nPID|1", "MSH|^~\\&|A\nPID|1"),
    ],
)
def test_what_is_right_is_read(parse: Parse, value: str, expected: object) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (units.name, ["", "A", "1a", "-a", "a_b", "a b", "a\n", "é", "../a", "a" * 32, "a" * 300]),
        (units.text, ["", "  ", "a\nb", "a\x1b[31m", "a\u202eb", "a\u2028b", "x" * 81]),
        (units.size, ["", "4", "4g", "4 G", "G", "0G", "-1G", "1.5G", "4GiB", "4K", "1234567G", "4G\n", "٤G"]),
        (units.duration, ["", "5", "0s", "0h0m0s", "m", "3 m", "3m3h", "1d", "-1s", "1.5h", "169h", "3m\n", "3M"]),
        (units.mac, ["", "52:54:00:00:00", "52-54-00-00-00-01", "01:00:00:00:00:00", "00:00:00:00:00:00",
                     "ff:ff:ff:ff:ff:ff"]),
        (units.address, ["", "10.1.1", "10.1.1.256", "010.1.1.1", "::1", "10.1.1.1/24", "host", "0.0.0.0", "127.0.0.1",
                         "224.0.0.1", "255.255.255.255", "169.254.1.1", " 10.1.1.1"]),
        (units.interface, ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/31", "10.0.0.1/7", "10.0.0.0/24", "10.0.0.255/24",
                           "10.0.0.1/255.255.255.0", "fe80::1/64", "127.0.0.1/8"]),
        (units.id_path, ["", "a b", "a/b", "a\n", "x" * 129]),
        (units.ae_title, ["", " A", "A ", "A" * 17, "a\\b", "é", "a\n"]),
        (units.http_url, ["", ":8042", "http://host/", "http://me@:80/", "http://:0/", "http://:65536/",
                          "http://:80/ x",
                          "http://:80/#a", "ftp://:21/", "http://:80/é", "http://:80/\n", "HTTP://:80"]),
        (units.base_url, ["", "/fhir", "http://host/fhir", "http://:80/a?b", "http://:0/fhir"]),
        (units.pin, ["", "0a" * 32, "sha256:", "sha256:" + "0a" * 31, "sha1:" + "0a" * 20, "sha256:" + "0g" * 32,
                     "sha256:0a" + "0a:" * 30 + "0a", "sha256:" + "0a" * 32 + "\n"]),
        (units.suffix, ["", "hospital", "dc=", "=a", "dc=a,", "dc=a,,dc=b", "dc=a\n", "dc=a\\", "dc=" + "a" * 129]),
        (units.realm, ["", ".A", "A.", "A B", "A@B", "é", "A" * 129]),
        (units.principal, ["", "a@B", "a b", "/a", "a/", "a\\b", "é", "a/b/c/d/e"]),
        (units.dns_name, ["", ".", "a..b", "-a", "a-", "a b", "é", "a" * 64, "a.b\n", ".".join(["a" * 63] * 4)]),
        (units.identifier, ["", "a\0b", "é" * 32, "a\n"]),
        (units.payload, ["x" * 16385]),
        (units.evidence, ["", "x" * 16385]),
        (units.hl7_message, ["", "MSH", "MSHA", "PID|1", "\x0bMSH|", "MSH|\x1c\r", "MSH|a\rMSH|b", "MSH|a\nBHS|b",
                             "MSH|" + "x" * 16384]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(parse: Parse, values: list[str]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r".") as caught:
            parse(value)
        assert str(caught.value).isprintable(), value


@pytest.mark.parametrize(
    "parse",
    [
        units.name, units.text, units.size, units.duration, units.mac, units.address, units.interface, units.id_path,
        units.ae_title, units.http_url, units.base_url, units.pin, units.suffix, units.realm, units.principal,
        units.dns_name, units.identifier, units.payload, units.evidence, units.hl7_message,
    ],
)  # fmt: skip
def test_only_text_is_text(parse: Parse) -> None:
    values: tuple[object, ...] = (None, 5, True, 1.5, [], {}, b"a", 16**5000)
    for value in values:
        with pytest.raises(ValueError, match=";"):
            parse(value)


@unhurried
@given(st.from_regex(units.NAME, fullmatch=True))
def test_a_derived_mac_depends_on_the_name_alone(name: str) -> None:
    mac = units.derived_mac(name)
    assert units.mac(mac) == mac == units.derived_mac(name)
    assert mac.startswith("02:")
    assert mac != units.derived_mac(name + "x")


@unhurried
@given(st.text() | st.integers() | st.floats() | st.booleans())
def test_a_quoted_value_is_one_safe_line(value: object) -> None:
    assert quote(value).isprintable()


def test_a_long_value_is_cut() -> None:
    assert quote("x" * 61) == '"' + "x" * 60 + '…"'
    assert quote("a\nb\x1b\u202e\u00a0é") == '"a\\nb\\x1b\\u202e\\xa0é"'
