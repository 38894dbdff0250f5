"""Readiness of a DICOM application entity: an association for the Verification SOP Class, and a C-ECHO.

DICOM PS3.8 section 9.3 (PDUs), PS3.7 section 9.3.5 (C-ECHO). pynetdicom encodes and decodes; its association
threads are not used, since their reads have no deadline and no bound, and joining them can hang for ever.
One connection with one deadline takes the place of the ACSE, DIMSE and network timeouts, and needs no thread.
"""

import struct
import warnings

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, build_context
from pynetdicom.dimse_messages import C_ECHO_RQ, C_ECHO_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from cleanroomd.model.plan import DicomProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

_VERIFICATION = UID("1.2.840.10008.1.1")
_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
_CONTEXT_ID = 1
_MESSAGE_ID = 1
_SUCCESS = 0x0000

_MAXIMUM_PDU = 16382
"""Bytes of a P-DATA-TF that we say we take (PS3.8 annex D.1), well within the connection's budget."""

_FRAGMENTS = 16
"""A C-ECHO response fits one PDU; a machine that needs more of them than this sends something else."""

_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _ABORT = 0x02, 0x03, 0x04, 0x07

_DECODE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
)
"""What pynetdicom and pydicom raise on bytes that are not DICOM."""


def associate_request(probe: DicomProbe) -> bytes:
    """The A-ASSOCIATE-RQ that proposes Verification in the default transfer syntax, and nothing else."""
    context = build_context(_VERIFICATION, ImplicitVRLittleEndian)
    context.context_id = _CONTEXT_ID
    longest = MaximumLengthNotification()
    longest.maximum_length_received = _MAXIMUM_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    request = A_ASSOCIATE()
    request.application_context_name = _APPLICATION_CONTEXT
    request.calling_ae_title = probe.calling_aet
    request.called_ae_title = probe.aet
    request.presentation_context_definition_list = [context]
    request.user_information = [longest, implementation]
    return A_ASSOCIATE_RQ(request).encode()


def echo_request() -> bytes:
    """The C-ECHO-RQ as one P-DATA-TF; it is far smaller than any PDU size that can be negotiated."""
    echo = C_ECHO()
    echo.MessageID = _MESSAGE_ID
    echo.AffectedSOPClassUID = _VERIFICATION
    message = C_ECHO_RQ()
    message.primitive_to_message(echo)
    return b"".join(P_DATA_TF(part).encode() for part in message.encode_msg(_CONTEXT_ID, _MAXIMUM_PDU))


def _receive(connection: Connection) -> tuple[int, bytes]:
    """The type and the whole bytes of the next PDU (PS3.8 section 9.3.1: type, reserved, 32-bit length)."""
    untrusted_head = connection.receive_exactly(6)
    kind, length = struct.unpack(">BxI", untrusted_head)
    if not _ASSOCIATE_AC <= kind <= _ABORT:
        raise UnreadyError("the answer is not DICOM")
    untrusted_pdu = untrusted_head + connection.receive_exactly(length)
    if kind == _ABORT:
        raise UnreadyError("the association was aborted")
    return kind, untrusted_pdu


def _require_accepted(kind: int, untrusted_pdu: bytes) -> None:
    """Return when the association was accepted together with our presentation context."""
    if kind == _ASSOCIATE_RJ:
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(untrusted_pdu)
        raise UnreadyError(f"association rejected: {printable(rejection.reason_str, 80)}")
    if kind != _ASSOCIATE_AC:
        raise UnreadyError("the answer is not an association")
    acceptance = A_ASSOCIATE_AC()
    acceptance.decode(untrusted_pdu)
    results = {context.context_id: context.result for context in acceptance.presentation_context}
    if results.get(_CONTEXT_ID) != 0:
        raise UnreadyError("association accepted, but not for Verification")


def _read_status(connection: Connection) -> int:
    """The status of the C-ECHO-RSP to our request, from one or more P-DATA-TF PDUs."""
    message = DIMSEMessage()
    for _ in range(_FRAGMENTS):
        kind, untrusted_pdu = _receive(connection)
        if kind != _P_DATA:
            raise UnreadyError("the association ended before the C-ECHO was answered")
        data = P_DATA_TF()
        data.decode(untrusted_pdu)
        if not message.decode_msg(data.to_primitive()):
            continue
        command = message.command_set
        # decode_msg turns the object into the class of the message that it found.
        if not isinstance(message, C_ECHO_RSP) or command.MessageIDBeingRespondedTo != _MESSAGE_ID:
            raise UnreadyError("the answer is not one to our C-ECHO")
        return int(command.Status)
    raise UnreadyError("the answer is too long")


def _echo(connection: Connection, probe: DicomProbe) -> None:
    """Return once the C-ECHO had status 0x0000; UnreadyError otherwise."""
    connection.sendall(associate_request(probe))
    _require_accepted(*_receive(connection))
    connection.sendall(echo_request())
    status = _read_status(connection)
    if status != _SUCCESS:
        raise UnreadyError(f"answered 0x{status:04X}")


def _release(connection: Connection) -> None:
    """End the association in good order, so that the machine's log shows no fault, however it answers."""
    try:
        connection.sendall(A_RELEASE_RQ().encode())
        connection.receive()
    except (UnreadyError, OSError):
        return


def attempt(probe: DicomProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when a C-ECHO to `probe.aet`, called by `probe.calling_aet`, is answered with status 0x0000."""
    goal = "C-ECHO 0x0000"
    try:
        with (
            Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection,
            warnings.catch_warnings(),
        ):
            # pydicom warns about odd values; here they are only one more kind of wrong answer.
            warnings.simplefilter("ignore")
            _echo(connection, probe)
            _release(connection)
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except _DECODE_ERRORS as error:
        return waiting(goal, f"the answer is not DICOM: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=goal)
