"""Client and server over a real socket."""

import asyncio
import json
import socket
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.control.client import Client
from cleanroomd.control.server import ControlServer
from cleanroomd.errors import CleanroomError, ControlError
from cleanroomd.model.status import ServiceState
from tests.unit.control.fake import STATUS, FakeEnclosure, with_service


async def test_every_verb_reaches_the_enclosure(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, tmp_path / "control"):
        client = Client(tmp_path / "control")
        assert await client.status() == STATUS
        assert await client.start("imaging") == "asked to start imaging"
        await client.stop("imaging")
        await client.restore()
        await client.shutdown()
    assert enclosure.asked == ["start imaging", "stop imaging", "restore", "shutdown"]


async def test_a_watch_gets_the_status_at_once_and_at_every_change(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    later = with_service(STATUS, "record", ServiceState.READY)
    async with ControlServer(enclosure, tmp_path / "control"):
        async with aclosing(Client(tmp_path / "control").watch()) as statuses:
            assert await anext(statuses) == STATUS
            enclosure.publish(later)
            assert await anext(statuses) == later
        await enclosure.until_subscribers(0)


async def test_a_slow_watcher_gets_the_newest_status(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, tmp_path / "control"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control", limit=4096)
        writer.write(b'{"method": "org.cleanroomd.Control.WatchStatus", "more": true}\0')
        await reader.readuntil(b"\0")
        statuses = [replace(STATUS, now=float(number)) for number in range(3000)]
        for status in statuses:
            enclosure.publish(status)
            await asyncio.sleep(0)
        received: list[float] = []
        while not received or received[-1] != statuses[-1].now:
            received.append(json.loads((await reader.readuntil(b"\0"))[:-1])["parameters"]["status"]["now"])
        assert received == sorted(received)
        assert len(received) < len(statuses) / 10
        writer.close()


async def test_the_journal_ends_or_goes_on(tmp_path: Path) -> None:
    enclosure = FakeEnclosure(entries=[{"time": 1.0, "text": "power-on"}, {"time": 2.0, "service": "imaging"}])
    async with ControlServer(enclosure, tmp_path / "control"):
        client = Client(tmp_path / "control")
        entries = [entry async for entry in client.journal()]
        assert [entry.text for entry in entries] == ["power-on", ""]
        assert entries[1].service == "imaging"
        async with aclosing(client.journal(follow=True)) as following:
            assert (await anext(following)).text == "power-on"
            assert (await anext(following)).service == "imaging"
            waiting = asyncio.ensure_future(anext(following))
            await client.status()
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait((waiting,))


async def test_the_end_of_the_journal_and_what_is_about_one_service(tmp_path: Path) -> None:
    enclosure = FakeEnclosure(entries=[{"text": str(number), "service": "imaging"} for number in range(4)])
    async with ControlServer(enclosure, tmp_path / "control"):
        client = Client(tmp_path / "control")
        assert [entry.text async for entry in client.journal(last=2)] == ["2", "3"]
        assert [entry async for entry in client.journal(last=0)] == []
        assert [entry async for entry in client.journal(service="record")] == []
        with pytest.raises(ControlError, match="the plan has no such service") as refused:
            await anext(client.journal(service="imagign"))
        assert refused.value.hint == "did you mean imaging?"
        for impossible in (-1, 1 << 70):
            with pytest.raises(ControlError, match="InvalidParameter"):
                await anext(client.journal(last=impossible))


async def test_an_empty_journal_is_no_error(tmp_path: Path) -> None:
    async with ControlServer(FakeEnclosure(), tmp_path / "control"):
        assert [entry async for entry in Client(tmp_path / "control").journal()] == []


async def test_a_refusal_keeps_its_words(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    enclosure.refusal = CleanroomError("cannot start imaging: no disk", "put back the sealed copy")
    async with ControlServer(enclosure, tmp_path / "control"):
        with pytest.raises(ControlError) as caught:
            await Client(tmp_path / "control").start("imaging")
    assert caught.value.message == "cannot start imaging: no disk"
    assert caught.value.hint == "put back the sealed copy"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("imagingx", "did you mean imaging?"), ("payroll", "the services are imaging, record"), ("x" * 9999, "are")],
)
async def test_an_unknown_service_is_answered_with_the_known(tmp_path: Path, name: str, hint: str) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, tmp_path / "control"):
        with pytest.raises(ControlError, match="no such service") as caught:
            await Client(tmp_path / "control").stop(name)
    assert hint in caught.value.hint
    assert enclosure.asked == []


async def test_a_fault_of_the_daemon_costs_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    enclosure = FakeEnclosure()

    async def broken() -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(enclosure, "restore", broken)
    async with ControlServer(enclosure, tmp_path / "control"):
        client = Client(tmp_path / "control")
        with pytest.raises(ControlError, match="cannot restore: cleanroomd failed at it"):
            await client.restore()
        assert await client.status() == STATUS
    assert "ZeroDivisionError" in caplog.text


async def test_the_interface_describes_itself(tmp_path: Path) -> None:
    async with ControlServer(FakeEnclosure(), tmp_path / "control"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control", limit=1 << 20)
        ask = {
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": {"interface": "org.cleanroomd.Control"},
        }
        writer.write(json.dumps(ask).encode() + b"\0" + b'{"method": "org.varlink.service.GetInfo"}\0')
        description = json.loads((await reader.readuntil(b"\0"))[:-1])["parameters"]["description"]
        info = json.loads((await reader.readuntil(b"\0"))[:-1])["parameters"]
        writer.close()
    assert info["interfaces"] == ["org.cleanroomd.Control", "org.varlink.service"]
    lines = [line for line in description.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "interface org.cleanroomd.Control"
    kinds = [line.split()[0] for line in lines[1:]]
    assert set(kinds) == {"type", "method", "error"}
    assert "method WatchStatus() -> (status: Status)" in lines
    assert "method Start(service: string) -> (request: string)" in lines
    assert "method ReadJournal(follow: bool, last: ?int, service: ?string) -> (entry: ?JournalEntry)" in lines
    assert "error NotAllowed (needs: string)" in lines
    (status,) = (line for line in lines if line.startswith("type Status "))
    assert "services: []ServiceStatus" in status
    assert "state: (RESTORING, RESTORED, DEGRADED, HALTED, STOPPED)" in status
    assert "object" not in description


async def test_leaving_the_server_ends_every_client_and_the_socket(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    path = tmp_path / "control"
    async with ControlServer(enclosure, path):
        statuses = Client(path).watch()
        await anext(statuses)
    with pytest.raises(ControlError, match="it closed the connection"):
        await anext(statuses)
    await enclosure.until_subscribers(0)
    assert not path.exists()
    with pytest.raises(ControlError, match="nothing answers"):
        await Client(path).status()


async def test_a_watch_is_patient_between_changes(tmp_path: Path) -> None:
    enclosure = FakeEnclosure()
    watch = Client(tmp_path / "control", patience=0.2).watch()
    async with ControlServer(enclosure, tmp_path / "control"), aclosing(watch) as statuses:
        assert await anext(statuses) == STATUS
        asyncio.get_running_loop().call_later(0.5, enclosure.publish, STATUS)
        assert await anext(statuses) == STATUS


async def test_a_daemon_that_does_not_answer_is_said_not_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "control"))
        deaf.listen()
        with pytest.raises(ControlError, match="does not answer"):
            await Client(tmp_path / "control", patience=0.05).status()


@pytest.mark.parametrize(
    "answer",
    [b"[]\0", b"nonsense\0", b'{"parameters": {}}\0', b'{"parameters": {"status": {}}}\0', b"\xff\0", b"{}\0"],
)
async def test_a_strange_answer_is_an_error_in_words(tmp_path: Path, answer: bytes) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(strange, tmp_path / "control"):
        with pytest.raises(ControlError, match="cannot read the status: what cleanroomd answered"):
            await Client(tmp_path / "control").status()
