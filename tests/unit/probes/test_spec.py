import json
from ipaddress import AddressValueError

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    Protocol,
    Quorum,
    SmbProbe,
    TcpProbe,
)
from cleanroomd.probes.answer import Answer
from cleanroomd.probes.spec import Pace, Round, Spec, decode_round, decode_spec, encode_round, encode_spec

ports = st.integers(1, 65535)
single: st.SearchStrategy[Probe] = st.one_of(
    st.builds(HttpProbe, port=ports, path=st.text(), tls=st.booleans(), contains=st.text(), pin=st.text()),
    st.builds(TcpProbe, port=ports, expect=st.binary(), send=st.binary()),
    st.builds(PostgresProbe, port=ports, database=st.text(), user=st.text()),
    st.builds(MllpProbe, port=ports, message=st.text(), accept=st.lists(st.text()).map(tuple)),
    st.builds(DicomProbe, port=ports, aet=st.text(), calling_aet=st.text()),
    st.builds(FhirProbe, port=ports, base=st.text(), tls=st.booleans(), pin=st.text()),
    st.builds(LdapProbe, port=ports, tls=st.booleans(), suffix=st.text()),
    st.builds(KerberosProbe, port=ports, realm=st.text(), principal=st.text()),
    st.builds(SmbProbe, port=ports),
    st.builds(
        DnsProbe,
        port=ports,
        name=st.text(),
        record=st.text(),
        transport=st.sampled_from(Protocol),
        accept=st.lists(st.text()).map(tuple),
    ),
    st.builds(MssqlProbe, port=ports),
    st.builds(GuestAgentProbe),
)
probes = st.recursive(
    single,
    lambda parts: st.builds(Quorum, st.integers(1, 3), st.lists(parts, max_size=3).map(tuple)),
    max_leaves=8,
)
good = Answer(ok=True, detail="C-ECHO 0x0000")
bad = Answer(ok=False, detail="waiting for HTTP 200 on /system (connection refused)")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(probes).map(tuple), st.ip_addresses(v=4).map(str))
def test_a_spec_survives_the_line(several: tuple[Probe, ...], address: str) -> None:
    spec = Spec(address=address, probes=several, pace=Pace(interval=0.25))
    line = encode_spec(spec)
    assert line.count(b"\n") == 1
    decoded = decode_spec(line)
    assert decoded == spec
    # A string would be equal to the transport that it names.
    assert repr(decoded) == repr(spec)


def test_a_round_has_time_for_every_attempt_within_it() -> None:
    smb = SmbProbe()
    spec = Spec("10.1.1.1", (smb, Quorum(1, (smb, Quorum(2, (smb, smb))))), Pace(timeout=5, steady_interval=10))
    assert spec.budget == 4 * 5 + 10


@pytest.mark.parametrize("address", ["pacs.example", "::1", "127.0.0.1;id", ""])
def test_only_numeric_ipv4_addresses_are_probed(address: str) -> None:
    with pytest.raises(AddressValueError):
        decode_spec(encode_spec(Spec(address=address, probes=())))


def test_ready_means_every_probe() -> None:
    both = Round((good, Answer(ok=True, detail="HTTP 200 on /system")))
    assert (both.ok, both.detail) == (True, "C-ECHO 0x0000; HTTP 200 on /system")
    one = Round((good, bad))
    assert (one.ok, one.detail) == (False, bad.detail)
    assert not Round(()).ok


def test_a_round_survives_the_line() -> None:
    outcome = Round((good, bad))
    assert decode_round(encode_round(outcome), 2) == outcome


@settings(deadline=None)
@given(st.binary())
def test_what_is_no_round_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 any message will do
        decode_round(line, 1)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"answers": []},
        {"answers": [{"ok": 1, "detail": "x"}]},
        {"answers": [{"ok": True, "detail": None}]},
        {"answers": [{"ok": True}]},
        {"answers": ["x"]},
        {"answers": [{"ok": True, "detail": "x"}] * 2},
    ],
)
def test_a_malformed_round_is_a_value_error(document: object) -> None:
    with pytest.raises(ValueError, match="answer"):
        decode_round(json.dumps(document).encode(), 1)


def test_nesting_without_end_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="deeply"):
        decode_round(b"[" * 60_000, 1)


def test_a_line_that_contradicts_its_answers_is_judged_by_them() -> None:
    line = json.dumps({"ok": True, "detail": "fine", "answers": [{"ok": False, "detail": "\x1b[2Jno"}]})
    outcome = decode_round(line.encode(), 1)
    assert (outcome.ok, outcome.detail) == (False, "[2Jno")
