import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime

import hl7
import pytest
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.model.plan import MllpProbe
from cleanroomd.probes import mllp
from cleanroomd.probes.answer import Answer, UnreadyError

from .conftest import LOOPBACK, Handler, Peer

NOW = datetime(2026, 11, 23, 3, 14, tzinfo=UTC)
ORU = "MSH|^~\\&|ANALYSER|LAB|LIS|LAB|20200101||ORU^R01|OLD|P|2.5\nPID|1||TEST\nOBR|1|||GLU\nOBX|1|NM|GLU||5.4|mmol/L"


def acknowledging(code: str, *, control_id: str | None = None) -> Handler:
    """A receiver that answers MSA-1 = `code`, and MSA-2 = what it was sent unless told otherwise."""

    def handle(connection: socket.socket) -> None:
        sent = connection.recv(65536).strip(b"\x0b\x1c\r").decode()
        acknowledged = control_id if control_id is not None else sent.split("\r")[0].split("|")[9]
        ack = f"MSH|^~\\&|LAB|LAB|||20260101||ACK|1|T|2.5\rMSA|{code}|{acknowledged}|unknown\x1b[1mtest\r"
        connection.sendall(b"\x0b" + ack.encode() + b"\x1c\x0d")

    return handle


def attempt(port: int, **options: object) -> Answer:
    return mllp.attempt(MllpProbe(port=port, **options), LOOPBACK, timeout=2)  # type: ignore[arg-type]


def header(framed: bytes) -> list[str]:
    assert framed.startswith(b"\x0bMSH|")
    assert framed.endswith(b"\x1c\x0d")
    return framed[1:-2].decode().split("\r")[0].split("|")


@pytest.mark.parametrize("message", ["", ORU, ORU.replace("\n", "\r"), ORU.replace("\n", "\r\n") + "\n\n"])
def test_whatever_the_plan_says_it_is_a_test_with_our_control_id(message: str) -> None:
    framed = mllp.compose(message, control_id="CR1", now=NOW)
    assert header(framed)[9:11] == ["CR1", "T"]
    assert framed.count(b"\x0b") == framed.count(b"\x1c") == 1
    assert b"\n" not in framed


def test_a_message_that_ends_before_its_processing_id_gets_one() -> None:
    assert header(mllp.compose("MSH|^~\\&|A", control_id="CR1", now=NOW))[9:11] == ["CR1", "T"]


def test_other_separators_are_respected() -> None:
    framed = mllp.compose("MSH#*~\\&#A#B#C#D###ORU*R01#OLD#P*A#2.3", control_id="CR1", now=NOW)
    assert framed == b"\x0bMSH#*~\\&#A#B#C#D#20261123031400+0000##ORU*R01#CR1#T#2.3\r\x1c\x0d"


def test_the_rest_of_the_plans_message_is_sent_as_it_is() -> None:
    framed = mllp.compose(ORU, control_id="CR1", now=NOW)
    assert framed[1:-2].decode().split("\r")[1:] == [*ORU.split("\n")[1:], ""]
    assert header(framed)[6] == "20200101"


@pytest.mark.parametrize(
    "message",
    [
        "PID|1",
        "nonsense",
        "MSH",
        f"{ORU}\n{ORU}",
        f"FHS|^~\\&\n{ORU}",
        ORU + "\x1c\rMSH|^~\\&|A||||||ORU^R01|1|P|2.5",
        ORU + "\x0bMSH|^~\\&|A||||||ORU^R01|1|P|2.5",
    ],
)
def test_what_could_go_without_its_t_is_not_sent(message: str, peer: Peer) -> None:
    received: list[bytes] = []
    answer = attempt(peer(lambda connection: received.append(connection.recv(65536))), message=message)
    assert not answer.ok
    assert "the plan's message" in answer.detail
    assert received == []


@given(st.text("MSHPIDBT|^~\\&#\r\n\x0b\x1c 1", max_size=80).map(lambda text: "MSH|^~\\&|A|B" + text))
def test_no_message_of_a_plan_is_sent_for_production(message: str) -> None:
    try:
        framed = mllp.compose(message, control_id="CR1", now=NOW)
    except UnreadyError:
        return
    headers = [line for line in framed[1:-2].decode().split("\r") if line.startswith("MSH")]
    assert len(headers) == 1
    assert hl7.parse(framed[1:-2].decode()).extract_field("MSH", 1, 11) == "T"
    assert framed[1:-2].count(b"\x0b") + framed[1:-2].count(b"\x1c") == 0


def test_an_acknowledgement_of_our_message_is_ready(peer: Peer) -> None:
    assert attempt(peer(acknowledging("AA"))) == Answer(ok=True, detail="MLLP acknowledged (AA)")
    assert attempt(peer(acknowledging("CA"))).ok


@pytest.mark.parametrize("code", ["AE", "AR", "CR", "aa", ""])
def test_a_rejection_is_not_ready(peer: Peer, code: str) -> None:
    answer = attempt(peer(acknowledging(code)))
    why = f"answered {code or 'no code'}: unknown[1mtest"
    assert answer == Answer(ok=False, detail=f"waiting for an MLLP acknowledgement ({why})")


def test_a_rejection_is_ready_where_the_plan_says_so(peer: Peer) -> None:
    answer = attempt(peer(acknowledging("AR")), accept=("AA", "AR"))
    assert answer == Answer(ok=True, detail="MLLP acknowledged (AR)")


@pytest.mark.parametrize("control_id", ["OLD", "", "CR"])
def test_an_acknowledgement_of_another_message_is_not_ready(peer: Peer, control_id: str) -> None:
    answer = attempt(peer(acknowledging("AA", control_id=control_id)))
    assert not answer.ok
    assert "another message" in answer.detail


def test_control_ids_are_never_used_twice(peer: Peer) -> None:
    received: list[bytes] = []
    port = peer(lambda connection: received.append(connection.recv(65536)))
    for _ in range(20):
        attempt(port)
    assert len({header(message)[9] for message in received}) == 20


@pytest.mark.parametrize(
    "said",
    [
        b"MSH|^~\\&|A\rMSA|AA|x\r\x1c\x0d",
        b"\x0bMSA|AA|x\r\x1c\x0d",
        b"\x0bMSH|^~\\&|A\r\x1c\x0d",
        b"\x0bMSH|^~\\&|A\rMSA|AA|x\r",
        b"\x0b\x1c\x0d",
    ],
)
def test_a_malformed_answer_is_not_ready(peer: Peer, reply: Callable[[bytes], Handler], said: bytes) -> None:
    assert not attempt(peer(reply(said))).ok


@pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcnow:DeprecationWarning:hl7")
async def test_a_receiver_of_the_hl7_package_is_ready() -> None:
    messages: list[hl7.Message] = []

    async def receive(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        message = await reader.readmessage()
        messages.append(message)
        writer.writemessage(message.create_ack())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await start_hl7_server(receive, LOOPBACK, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answers = [await asyncio.to_thread(attempt, port, message=message) for message in ("", ORU)]
    assert answers == [Answer(ok=True, detail="MLLP acknowledged (AA)")] * 2
    assert [str(message.segment("MSH")(9)) for message in messages] == ["NMD^N02", "ORU^R01"]
