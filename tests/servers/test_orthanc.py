"""The DICOM and HTTP probes and the server of Debian's `orthanc` package."""

import json
from pathlib import Path

import pytest

from cleanroomd.model.plan import DicomProbe, HttpProbe

from .conftest import Running, Watch

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def configuration(directory: Path) -> Path:
    storage = directory / "storage"
    path = directory / "orthanc.json"
    settings = {
        "Name": "Imagerie",
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "Plugins": [],
        "HttpPort": 8042,
        "DicomPort": 4242,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "AuthenticationEnabled": False,
    }
    path.write_text(json.dumps(settings))
    return path


async def test_orthanc_is_ready_by_echo_and_http(running: Running, configuration: Path, watch: Watch) -> None:
    answers = watch(DicomProbe(port=4242, aet="ORTHANC"), HttpProbe(port=8042, path="/system", contains="Imagerie"))
    refused = await answers.until("")
    assert refused.detail == "waiting for C-ECHO 0x0000 (connection refused)"
    with running(["/usr/sbin/Orthanc", configuration]):
        ready = await answers.until("HTTP 200")
        assert (ready.ok, ready.detail) == (True, "C-ECHO 0x0000; HTTP 200 on /system")
        assert not (await watch(DicomProbe(port=4242, aet="PACS")).until("rejected")).ok
        assert not (await watch(HttpProbe(port=8042, path="/nothing")).until("HTTP 404")).ok
