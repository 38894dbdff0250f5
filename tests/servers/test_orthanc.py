"""The DICOM and HTTP probes and the server of Debian's `orthanc` package."""

import asyncio
import json
from pathlib import Path

import pytest

from cleanroomd.model.observed import ProbeFacts
from cleanroomd.model.plan import DicomProbe, HttpProbe, Probe
from cleanroomd.probes.runner import ProbeRunner, child_command
from cleanroomd.probes.spec import Pace

from .conftest import LOOPBACK, Running

pytestmark = pytest.mark.timeout(120)

PACE = Pace(interval=0.05, steady_interval=0.05)


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


async def first(enter: list[str], probes: list[Probe], detail: str) -> ProbeFacts:
    """The first answer of a real child in the server's namespace that has `detail` in it."""
    answers: asyncio.Queue[ProbeFacts] = asyncio.Queue()
    runner = ProbeRunner(command=[*enter, *child_command()], pace=PACE)
    runner.watch("imaging", probes, LOOPBACK, lambda _, facts: answers.put_nowait(facts))
    try:
        while True:
            facts = await answers.get()
            if detail in facts.detail:
                return facts
    finally:
        await runner.close()


async def test_orthanc_is_ready_by_echo_and_http(running: Running, configuration: Path, enter: list[str]) -> None:
    probes: list[Probe] = [
        DicomProbe(port=4242, aet="ORTHANC"),
        HttpProbe(port=8042, path="/system", contains="Imagerie"),
    ]
    refused = await first(enter, probes, "")
    assert refused.detail == "waiting for C-ECHO 0x0000 (connection refused)"
    with running(["/usr/sbin/Orthanc", configuration]):
        ready = await first(enter, probes, "HTTP 200")
        assert (ready.ok, ready.detail) == (True, "C-ECHO 0x0000; HTTP 200 on /system")
        wrong_title = await first(enter, [DicomProbe(port=4242, aet="PACS")], "rejected")
        assert not wrong_title.ok
        missing = await first(enter, [HttpProbe(port=8042, path="/nothing")], "HTTP 404")
        assert not missing.ok
