"""What a clinical workstation does with the restored hospital: `python -m rigs.hospital.workstation ACT`.

Every act ends with one JSON object on standard output: `ok`, a sentence that is the proof (or the cause), and figures.
The exit status is 0 when the act succeeded. All patients are synthetic.
"""

import argparse
import asyncio
import datetime
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .errors import HospitalError
from .machines import DATABASE, IMAGING, LABORATORY, RECORD, RECORD_SECRET, RECORD_USER
from .tryton import Session

IMAGING_TITLE = "ORTHANC"
WORKSTATION_TITLE = "WORKSTATION"
PIXEL_ROWS, PIXEL_COLUMNS = 64, 64
SECRET_FROM_BUILD = RECORD_SECRET


@dataclass(frozen=True)
class Target:
    """Whom an act addresses; `timeout` in seconds bounds each exchange, `name` is the patient where one is needed."""

    host: str
    port: int
    timeout: float
    name: str


Result = dict[str, Any]


def sign_in(target: Target) -> Session:
    return Session.sign_in(
        host=target.host,
        port=target.port,
        database=DATABASE,
        user=RECORD_USER,
        secret=SECRET_FROM_BUILD,
        timeout=target.timeout,
    )


def record_login(target: Target) -> Result:
    """A session is only proven by a call that needs one."""
    session = sign_in(target)
    context = session.model("res.user", "get_preferences", True)  # noqa: FBT003 - Tryton's own signature
    if not isinstance(context, dict):
        raise HospitalError("cannot use the record: it opened a session and refused the preferences")
    session.sign_out()
    return {"proof": f"signed in to the record as {RECORD_USER}"}


def record_write(target: Target) -> Result:
    """A patient as a clinician would enter one: the person, then the patient file; read back in a second session."""
    session = sign_in(target)
    person = {
        "name": target.name,
        "lastname": "Synthetic",
        "is_person": True,
        "is_patient": True,
        "gender": "u",
        "fed_country": "",
    }
    (party,) = session.model("party.party", "create", [person])
    (patient,) = session.model("gnuhealth.patient", "create", [{"party": party}])
    session.sign_out()
    found = find_patient(target)
    if patient not in [row["id"] for row in found]:
        raise HospitalError("cannot write to the record: the patient that it created is not found again")
    return {"proof": f"patient {target.name!r} written to the record and read back", "patient": patient}


def record_read(target: Target) -> Result:
    found = find_patient(target)
    if not found:
        raise HospitalError(f"cannot find patient {target.name!r} in the record")
    return {"proof": f"patient {target.name!r} found in the record", "patient": found[0]["id"]}


def find_patient(target: Target) -> list[dict[str, Any]]:
    session = sign_in(target)
    rows = session.search_read("gnuhealth.patient", [["party.name", "=", target.name]], ["rec_name", "puid"])
    session.sign_out()
    return rows


def imaging_echo(target: Target) -> Result:
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    with dicom(target, [Verification]) as association:
        status = association.send_c_echo()
    return {"proof": f"C-ECHO {expect_success('C-ECHO', status):#06x}"}


def imaging_store_retrieve(target: Target) -> Result:
    """A study of one image travels to imaging by C-STORE and comes back by C-GET, pixel for pixel."""
    from pydicom.dataset import Dataset
    from pynetdicom import build_role, evt
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        SecondaryCaptureImageStorage,
        StudyRootQueryRetrieveInformationModelGet,
    )

    sent = synthetic_image(target.name)
    with dicom(target, [SecondaryCaptureImageStorage]) as association:
        expect_success("C-STORE", association.send_c_store(sent))

    received: list[Dataset] = []

    def keep(event: Any) -> int:
        received.append(event.dataset)
        return 0

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = sent.StudyInstanceUID
    with dicom(
        target,
        [StudyRootQueryRetrieveInformationModelGet, SecondaryCaptureImageStorage],
        roles=[build_role(SecondaryCaptureImageStorage, scp_role=True)],
        handlers=[(evt.EVT_C_STORE, keep)],
    ) as association:
        for status, _ in association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet):
            code = getattr(status, "Status", None)
            if code not in {0x0000, 0xFF00}:
                raise HospitalError(f"cannot retrieve the study: C-GET ended with {describe(code)}")
    if len(received) != 1:
        raise HospitalError(f"cannot retrieve the study: imaging returned {len(received)} images instead of 1")
    if received[0].PixelData != sent.PixelData:
        raise HospitalError("cannot trust imaging: the retrieved pixels differ from the stored ones")
    proof = f"study stored and retrieved, {PIXEL_ROWS * PIXEL_COLUMNS} pixels equal"
    return {"proof": proof, "study": str(sent.StudyInstanceUID)}


def synthetic_image(patient: str) -> Any:
    """A gradient as a secondary capture: the smallest image that a real archive accepts."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.PatientName = patient
    image.PatientID = "DEMO"
    image.Modality = "OT"  # codespell:ignore
    image.ConversionType = "SYN"
    image.StudyDate = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
    image.StudyID = "DEMO"
    image.SeriesNumber = 1
    image.InstanceNumber = 1
    image.Rows, image.Columns = PIXEL_ROWS, PIXEL_COLUMNS
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    image.PixelData = bytes((row * 3 + column) % 256 for row in range(PIXEL_ROWS) for column in range(PIXEL_COLUMNS))
    return image


class dicom:  # noqa: N801 - used as `with dicom(...)`
    """An association with imaging for the time of a block."""

    def __init__(
        self, target: Target, contexts: list[Any], *, roles: list[Any] | None = None, handlers: list[Any] | None = None
    ) -> None:
        from pynetdicom import AE

        entity = AE(ae_title=WORKSTATION_TITLE)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = target.timeout
        entity.connection_timeout = target.timeout
        for context in contexts:
            entity.add_requested_context(context)
        self._association = entity.associate(
            target.host, target.port, ae_title=IMAGING_TITLE, ext_neg=roles or [], evt_handlers=handlers or []
        )
        if not self._association.is_established:
            raise HospitalError(f"cannot reach imaging at {target.host}:{target.port}: no DICOM association")

    def __enter__(self) -> Any:
        return self._association

    def __exit__(self, *_: object) -> None:
        if self._association.is_established:
            self._association.release()


def expect_success(what: str, status: Any) -> int:
    code = getattr(status, "Status", None)
    if code != 0:
        raise HospitalError(f"cannot use imaging: {what} ended with {describe(code)}")
    return 0


def describe(code: int | None) -> str:
    return "no answer in time" if code is None else f"status {code:#06x}"


def laboratory_result(target: Target) -> Result:
    """A glucose result as an analyser's middleware sends it; AA with our control id means that it is on storage."""
    control = f"DEMO{time.time_ns()}"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d%H%M%S")
    message = "\r".join(
        (
            f"MSH|^~\\&|WORKSTATION|CARE|LABORATORY|HOSPITAL|{now}||ORU^R01^ORU_R01|{control}|P|2.5.1",
            f"PID|1||DEMO^^^HOSPITAL||{escape(target.name)}||19700101|U",
            f"OBR|1||{control}|2345-7^Glucose^LN|||{now}",
            "OBX|1|NM|2345-7^Glucose^LN||5.4|mmol/L|3.9-6.1|N|||F",
            "",
        )
    )
    try:
        code, answered = asyncio.run(exchange(target, message))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        cause = str(error) or f"no answer within {target.timeout:g} s"
        raise HospitalError(f"cannot reach the laboratory at {target.host}:{target.port}: {cause}") from error
    if (code, answered) != ("AA", control):
        raise HospitalError(f"cannot hand the result over: the laboratory answered {code} to {answered!r}")
    return {"proof": "ORU^R01 acknowledged (AA) by the laboratory", "control_id": control}


def escape(text: str) -> str:
    """HL7's own escapes for the five characters that structure a message (chapter 2.7)."""
    table = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "}
    return "".join(table.get(letter, letter) for letter in text)


async def exchange(target: Target, message: str) -> tuple[str, str]:
    """Send one message, return what its acknowledgement says: code and control id."""
    import hl7
    from hl7.mllp import InvalidBlockError, open_hl7_connection

    async with asyncio.timeout(target.timeout):
        reader, writer = await open_hl7_connection(target.host, target.port, encoding="utf-8")
        try:
            writer.writemessage(hl7.parse(message))
            await writer.drain()
            acknowledgement = (await reader.readmessage()).segment("MSA")
            return str(acknowledgement(1)), str(acknowledgement(2))
        except (hl7.HL7Exception, InvalidBlockError, ValueError, KeyError, IndexError) as error:
            raise HospitalError(f"cannot hand the result over: no acknowledgement came back: {error}") from error
        finally:
            writer.close()


@dataclass(frozen=True)
class Act:
    """One thing that a workstation does, and where it does it by default."""

    perform: Callable[[Target], Result]
    host: str
    port: int


ACTS: Mapping[str, Act] = MappingProxyType(
    {
        "record-login": Act(record_login, RECORD.address, 8000),
        "record-write": Act(record_write, RECORD.address, 8000),
        "record-read": Act(record_read, RECORD.address, 8000),
        "imaging-echo": Act(imaging_echo, IMAGING.address, 4242),
        "imaging-store-retrieve": Act(imaging_store_retrieve, IMAGING.address, 4242),
        "laboratory-result": Act(laboratory_result, LABORATORY.address, 2575),
    }
)


def perform(name: str, *, host: str | None, port: int | None, timeout: float, patient: str) -> Result:
    """Do one act and say how it went; it never raises for what the other side did."""
    act = ACTS[name]
    began = time.monotonic()
    try:
        target = Target(host=host or act.host, port=port or act.port, timeout=timeout, name=patient)
        result: Result = {"ok": True, **act.perform(target)}
    except HospitalError as error:
        result = {"ok": False, "proof": error.message}
    return {"act": name, **result, "seconds": round(time.monotonic() - began, 3)}


def main() -> int:
    """One JSON object on standard output, whatever happens."""
    parser = argparse.ArgumentParser(
        prog="python -m rigs.hospital.workstation", description="Act as a clinical workstation."
    )
    parser.add_argument("act", choices=ACTS)
    parser.add_argument("--host", help="instead of the machine's own address")
    parser.add_argument("--port", type=int)
    parser.add_argument("--name", default="Patient Demo 1", help="the synthetic patient")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each exchange")
    options = parser.parse_args()
    result = perform(options.act, host=options.host, port=options.port, timeout=options.timeout, patient=options.name)
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
