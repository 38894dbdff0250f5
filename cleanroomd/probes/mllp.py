"""Readiness of an HL7 v2 interface: a message with processing id T, and its acknowledgement.

Framing: HL7's "Minimal Lower Layer Protocol" (0x0B, message, 0x1C 0x0D). Fields and acknowledgement codes:
HL7 v2.5 chapter 2, sections 2.15.8 (MSA) and 2.15.9 (MSH), table 0008. MSH-11 = T (table 0103, training)
tells the receiver that nothing in the message is care; it is set here whatever the plan's message says, so
that no probe can create clinical data.
"""

import secrets
from datetime import UTC, datetime

import hl7

from cleanroomd.model.plan import MllpProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

START_BLOCK = b"\x0b"
END_BLOCK = b"\x1c\x0d"

MINIMAL_MESSAGE = "MSH|^~\\&|CLEANROOM|CLEANROOM|||||NMD^N02|||2.5\rNCK|{now}"
"""Application management (HL7 v2.5 chapter 14): it tells the time, names no patient and asks for nothing."""

_PARSE_ERRORS = (
    hl7.HL7Exception,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    RecursionError,
)
"""What the parser raises on input that is not HL7."""


def compose(message: str, *, control_id: str, now: datetime) -> bytes:
    """`message`, or the minimal one if empty, as one framed test message (MSH-11 = T) with `control_id`.

    UnreadyError if it is not exactly one HL7 message: a second one in the same frame would go without its T.
    """
    timestamp = now.strftime("%Y%m%d%H%M%S%z")
    text = "\r".join((message or MINIMAL_MESSAGE.format(now=timestamp)).split("\n"))
    text = "\r".join(line for line in text.split("\r") if line.strip())
    if any(framing in text for framing in "\x0b\x0c\x1c"):
        raise UnreadyError("the plan's message contains framing characters")
    try:
        parsed = hl7.parse(text)
        segments = [str(segment[0]) for segment in parsed]
        if segments[0] != "MSH" or any(name in ("MSH", "BHS", "FHS") for name in segments[1:]):
            raise UnreadyError("the plan's message is not one HL7 v2 message")
        if not str(parsed.extract_field("MSH", 1, 7) or ""):
            parsed.assign_field(timestamp, "MSH", 1, 7)
        parsed.assign_field(control_id, "MSH", 1, 10)
        parsed.assign_field("T", "MSH", 1, 11)
    except _PARSE_ERRORS:
        raise UnreadyError("the plan's message is not one HL7 v2 message") from None
    return START_BLOCK + str(parsed).encode() + END_BLOCK


def acknowledgement(untrusted_block: bytes) -> tuple[str, str, str]:
    """MSA-1 to MSA-3 of an answer (code, control id, text), printable; UnreadyError if it has none."""
    try:
        parsed = hl7.parse(untrusted_block.decode("utf-8", "replace"))
        if str(parsed[0][0]) != "MSH":
            raise UnreadyError("the answer is not an HL7 acknowledgement")
        fields = [str(field) for field in parsed.segment("MSA")]
    except _PARSE_ERRORS:
        raise UnreadyError("the answer is not an HL7 acknowledgement") from None
    code, control_id, text = (*fields[1:4], "", "", "")[:3]
    return printable(code, 8), printable(control_id, 40), printable(text, 60)


def _read_block(connection: Connection) -> bytes:
    untrusted = bytearray()
    while END_BLOCK not in untrusted:
        chunk = connection.receive()
        if not chunk:
            raise UnreadyError("the connection was closed")
        untrusted += chunk
        if not untrusted.startswith(START_BLOCK):
            raise UnreadyError("the answer is not framed as MLLP")
    return bytes(untrusted[1 : untrusted.index(END_BLOCK)])


def attempt(probe: MllpProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when MSA-1 is one of `probe.accept` and MSA-2 is the control id of the message just sent."""
    goal = "an MLLP acknowledgement"
    control_id = f"CR{secrets.token_hex(8).upper()}"
    try:
        message = compose(probe.message, control_id=control_id, now=datetime.now(UTC))
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(message)
            code, acknowledged, text = acknowledgement(_read_block(connection))
        if acknowledged != control_id:
            raise UnreadyError("another message was acknowledged")
        if code not in probe.accept:
            raise UnreadyError(f"answered {code or 'no code'}{': ' if text else ''}{text}")
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    return Answer(ok=True, detail=f"MLLP acknowledged ({code})")
