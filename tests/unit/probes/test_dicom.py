from collections.abc import Callable, Iterator

import pytest
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF

from cleanroomd.model.plan import DicomProbe
from cleanroomd.probes import dicom
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

VERIFICATION = "1.2.840.10008.1.1"
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
Start = Callable[..., int]


@pytest.fixture
def scp() -> Iterator[Start]:
    """Start a pynetdicom application entity called ORTHANC; returns its port."""
    entities: list[AE] = []

    def start(
        *, status: int = 0x0000, abstract_syntax: str = VERIFICATION, called: bool = False, calling: str = ""
    ) -> int:
        entity = AE(ae_title="ORTHANC")
        entity.supported_contexts = [build_context(abstract_syntax)]
        entity.require_called_aet = called
        entity.require_calling_aet = [calling] if calling else []
        entities.append(entity)
        server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _: status)])
        return int(server.socket.getsockname()[1])

    yield start
    for entity in entities:
        # The probe has left: they end by themselves, and aborting one that does makes pynetdicom's thread fail.
        for association in entity.active_associations:
            association.join(timeout=5)
        entity.shutdown()


def attempt(port: int, **options: str) -> Answer:
    return dicom.attempt(DicomProbe(port=port, **options), LOOPBACK, timeout=5)  # type: ignore[arg-type]


def test_a_successful_echo_is_ready(scp: Start) -> None:
    assert attempt(scp()) == Answer(ok=True, detail="C-ECHO 0x0000")


def test_both_titles_are_those_of_the_plan(scp: Start) -> None:
    port = scp(called=True, calling="MODALITY1")
    assert attempt(port, aet="ORTHANC", calling_aet="MODALITY1").ok
    wrong = attempt(port, aet="PACS", calling_aet="MODALITY1")
    assert not wrong.ok
    assert "association rejected: Called AE title not recognised" in wrong.detail
    assert not attempt(port, aet="ORTHANC").ok


@pytest.mark.parametrize("status", [0x0122, 0x0210, 0x0001])
def test_another_status_is_not_ready(scp: Start, status: int) -> None:
    answer = attempt(scp(status=status))
    assert answer == Answer(ok=False, detail=f"waiting for C-ECHO 0x0000 (answered 0x{status:04X})")


def test_an_entity_without_verification_is_not_ready(scp: Start) -> None:
    answer = attempt(scp(abstract_syntax=CT_STORAGE))
    assert not answer.ok


def test_a_title_that_dicom_forbids_is_not_sent(closed_port: int) -> None:
    assert not attempt(closed_port, aet="A" * 17).ok


def accepted(*, result: int = 0, context_id: int = 1) -> bytes:
    request = A_ASSOCIATE_RQ()
    request.decode(dicom.associate_request(DicomProbe(port=1)))
    primitive = request.to_primitive()
    (context,) = primitive.presentation_context_definition_list
    context.result = result
    context.context_id = context_id
    primitive.presentation_context_definition_results_list = [context]
    return bytes(A_ASSOCIATE_AC(primitive).encode())


def response(kind: str = "echo", *, status: int = 0, message_id: int = 1) -> bytes:
    primitive = C_ECHO() if kind == "echo" else C_STORE()
    message = C_ECHO_RSP() if kind == "echo" else C_STORE_RSP()
    primitive.MessageIDBeingRespondedTo = message_id
    primitive.AffectedSOPClassUID = VERIFICATION
    primitive.Status = status
    message.primitive_to_message(primitive)
    return b"".join(bytes(P_DATA_TF(part).encode()) for part in message.encode_msg(1, 16382))


def split(pdu: bytes) -> bytes:
    """The same message in two fragments, a PDU each (PS3.8 annex E.2: bit 1 marks the last fragment)."""
    data, middle = pdu[12:], 20

    def part(header: int, piece: bytes) -> bytes:
        item = (len(piece) + 2).to_bytes(4) + b"\x01" + bytes([header]) + piece
        return b"\x04\x00" + len(item).to_bytes(4) + item

    return part(1, data[:middle]) + part(3, data[middle:])


def test_the_forged_answers_of_these_tests_are_otherwise_good(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    assert attempt(peer(reply(accepted() + response()))).ok
    assert attempt(peer(reply(accepted() + split(response())))).ok


@pytest.mark.parametrize(
    "said",
    [
        response(),
        accepted(),
        accepted(result=3) + response(),
        accepted(context_id=3) + response(),
        accepted() + accepted() + response(),
        accepted() + response(message_id=2),
        accepted() + response("store"),
        accepted() + response(status=0xC000),
        accepted() + dicom.echo_request(),
        accepted() + b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        accepted() + b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x07",
        b"\x01\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_wrong_answer_is_not_ready(peer: Peer, reply: Callable[[bytes], Handler], said: bytes) -> None:
    assert not attempt(peer(reply(said))).ok
