"""What a probe child is told, as one line of JSON, and what it says, as one line of JSON for each round.

Both directions are checked: the child's because a machine may have taken the child over.
"""

import dataclasses
import json
from dataclasses import dataclass
from ipaddress import IPv4Address
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
    Protocol,
    ProtocolProbe,
    Quorum,
    SmbProbe,
    TcpProbe,
    protocol_probes,
)
from cleanroomd.probes.answer import Answer, printable

LINE_LIMIT = 64 * 1024
"""Bytes of the longest line that a child may say."""

SPEC_LIMIT = 1024 * 1024
"""Bytes of the longest spec; a plan's MLLP message is the only long thing in it."""

DETAIL_LIMIT = 400

_KINDS: dict[str, type[ProtocolProbe]] = {
    "http": HttpProbe,
    "tcp": TcpProbe,
    "postgres": PostgresProbe,
    "mllp": MllpProbe,
    "dicom": DicomProbe,
    "fhir": FhirProbe,
    "ldap": LdapProbe,
    "kerberos": KerberosProbe,
    "smb": SmbProbe,
    "dns": DnsProbe,
    "mssql": MssqlProbe,
    "guest_agent": GuestAgentProbe,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how patiently; all in seconds.

    While a machine boots, rounds begin `interval` apart at most and connecting is given up early, so that the
    moment of readiness is measured finely. Once it is ready, patience: a busy machine is not a dead one.
    """

    interval: float = 0.5
    steady_interval: float = 10.0
    timeout: float = 5.0
    """For a whole attempt, from connecting to the last byte of the answer."""
    connect_timeout: float = 0.5
    steady_connect_timeout: float = 3.0

    def round_budget(self, attempts: int) -> float:
        """The longest that a round of `attempts` and the pause after it may take."""
        return attempts * self.timeout + max(self.interval, self.steady_interval)


@dataclass(frozen=True, slots=True)
class Spec:
    address: str
    """Numeric IPv4; nothing here resolves names."""
    probes: tuple[Probe, ...]
    pace: Pace = Pace()

    @property
    def budget(self) -> float:
        """Seconds that a round and the pause after it may take at most."""
        return self.pace.round_budget(sum(1 for probe in self.probes for _ in protocol_probes(probe)))


@dataclass(frozen=True, slots=True)
class Round:
    """One answer for each probe, in the plan's order."""

    answers: tuple[Answer, ...]

    @property
    def ok(self) -> bool:
        """No probe at all proves nothing."""
        return bool(self.answers) and all(answer.ok for answer in self.answers)

    @property
    def detail(self) -> str:
        """All answers when all are good, else the first that is not."""
        if self.ok:
            return "; ".join(answer.detail for answer in self.answers)
        return next((answer.detail for answer in self.answers if not answer.ok), "no probe to answer")


def protocol(probe: ProtocolProbe) -> str:
    """The name of the module of this package that attempts `probe`."""
    return _NAMES[type(probe)]


def _plain(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _document(probe: Probe) -> dict[str, Any]:
    if isinstance(probe, Quorum):
        return {"need": probe.need, "of": [_document(part) for part in probe.of]}
    values = {field.name: _plain(getattr(probe, field.name)) for field in dataclasses.fields(probe)}
    return {"kind": protocol(probe)} | values


def encode_spec(spec: Spec) -> bytes:
    """`spec` as one line; bytes of a TCP probe travel as the Latin-1 text with the same code points."""
    document = {
        "address": spec.address,
        "probes": [_document(probe) for probe in spec.probes],
        "pace": dataclasses.asdict(spec.pace),
    }
    return json.dumps(document).encode() + b"\n"


def _probe(document: dict[str, Any]) -> Probe:
    if "of" in document:
        return Quorum(document["need"], tuple(_probe(part) for part in document["of"]))
    values = dict(document)
    kind = _KINDS[values.pop("kind")]
    if kind is TcpProbe:
        values = {name: value.encode("latin-1") if isinstance(value, str) else value for name, value in values.items()}
    if "accept" in values:
        values["accept"] = tuple(values["accept"])
    if "transport" in values:
        values["transport"] = Protocol(values["transport"])
    return kind(**values)


def decode_spec(line: bytes) -> Spec:
    """The spec of a line that `encode_spec` made; ValueError, TypeError or KeyError for any other."""
    document = json.loads(line)
    return Spec(
        address=str(IPv4Address(document["address"])),
        probes=tuple(_probe(probe) for probe in document["probes"]),
        pace=Pace(**document["pace"]),
    )


def encode_round(outcome: Round) -> bytes:
    """A round as one line: `ok` and `detail` of the whole, then of each probe."""
    document = {
        "ok": outcome.ok,
        "detail": outcome.detail,
        "answers": [dataclasses.asdict(answer) for answer in outcome.answers],
    }
    return json.dumps(document).encode() + b"\n"


def decode_round(untrusted_line: bytes, probes: int) -> Round:
    """What a child said about `probes` probes; ValueError if it is not what `encode_round` makes.

    The whole is computed again from the parts, so that a line cannot contradict itself.
    """
    try:
        untrusted = json.loads(untrusted_line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    untrusted_answers = untrusted.get("answers") if isinstance(untrusted, dict) else None
    if not isinstance(untrusted_answers, list) or len(untrusted_answers) != probes:
        raise ValueError(f"not {probes} answers")
    answers = []
    for untrusted_answer in untrusted_answers:
        if not isinstance(untrusted_answer, dict):
            raise ValueError("an answer is not an object")
        ok, detail = untrusted_answer.get("ok"), untrusted_answer.get("detail")
        if not isinstance(ok, bool) or not isinstance(detail, str):
            raise ValueError("an answer has no ok or no detail")
        answers.append(Answer(ok=ok, detail=printable(detail, DETAIL_LIMIT)))
    return Round(tuple(answers))
