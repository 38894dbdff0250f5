"""What the kernel says of a client, and what follows from it."""

import asyncio
import grp
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cleanroomd.control.access import ACT_GROUP, VIEW_GROUP
from cleanroomd.control.client import Client
from cleanroomd.control.credentials import Credentials
from cleanroomd.control.server import ControlServer
from cleanroomd.errors import ControlError
from tests.unit.control.fake import STATUS, FakeEnclosure

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="takes other identities, which takes root"
)

ACT, VIEW, OTHER = 4001, 4002, 4003
CREDENTIALS = Credentials(own_uid=990, names=((ACT, ACT_GROUP), (VIEW, VIEW_GROUP)))


@contextmanager
def identity(uid: int, gid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """Connections made meanwhile are those of another user, to the kernel too."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def path() -> Iterator[Path]:
    """Where every user can reach it, unlike pytest's own directories."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory / "control"


def groups_of(uid: int, gid: int, groups: Sequence[int]) -> frozenset[str]:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        with identity(uid, gid, groups):
            client.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            peer = CREDENTIALS.read(connection)
    assert (peer.uid, peer.pid, peer.owner) == (uid, os.getpid(), uid == CREDENTIALS.own_uid)
    return peer.groups


@pytest.mark.parametrize(
    ("gid", "groups", "found"),
    [
        (OTHER, [], set()),
        (ACT, [], {ACT_GROUP}),
        (OTHER, [VIEW], {VIEW_GROUP}),
        (OTHER, [OTHER, ACT, VIEW], {ACT_GROUP, VIEW_GROUP}),
        (OTHER, [*range(10_000, 10_255), VIEW], {VIEW_GROUP}),
    ],
)
def test_primary_and_supplementary_groups_count(gid: int, groups: list[int], found: set[str]) -> None:
    assert groups_of(1000, gid, groups) == found
    assert groups_of(990, gid, groups) == found


def test_more_groups_than_can_be_asked_for_count_as_none() -> None:
    assert groups_of(1000, OTHER, [*range(10_000, 10_300), ACT]) == frozenset()
    assert groups_of(1000, VIEW, [*range(10_000, 10_300), ACT]) == {VIEW_GROUP}


def test_a_group_that_does_not_exist_has_no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    def getgrnam(name: str) -> SimpleNamespace:
        if name == VIEW_GROUP:
            return SimpleNamespace(gr_gid=VIEW)
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", getgrnam)
    assert Credentials.of_this_system() == Credentials(own_uid=0, names=((VIEW, VIEW_GROUP),))


async def test_a_stranger_reads_why_and_gets_nothing_else(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, path, credentials=CREDENTIALS):
        client = Client(path)
        with identity(1000, OTHER):
            with pytest.raises(ControlError, match=r"cannot start imaging: only root and .* may"):
                await client.start("imaging")
            with pytest.raises(ControlError, match=r"cannot start payroll: only root and .* may"):
                await client.start("payroll")
            with pytest.raises(ControlError, match=r"cannot read the status: only root and .* may"):
                await client.status()
            with pytest.raises(ControlError, match=r"cannot read the status: only root and .* may"):
                await anext(client.watch())
            with pytest.raises(ControlError, match=r"cannot read the journal: only root and .* may"):
                await anext(client.journal())
    assert enclosure.asked == []
    assert "refused to start a service: uid 1000" in caplog.text


async def test_a_stranger_may_read_what_there_would_be(path: Path) -> None:
    async with ControlServer(FakeEnclosure(), path, credentials=CREDENTIALS):
        with identity(1000, OTHER):
            reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"method": "org.varlink.service.GetInfo"}\0')
        assert "parameters" in json.loads((await reader.readuntil(b"\0"))[:-1])
        writer.close()


async def test_a_viewer_reads_and_does_not_act(path: Path) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, path, credentials=CREDENTIALS):
        with identity(1000, OTHER, [VIEW]):
            assert await Client(path).status() == STATUS
            with pytest.raises(ControlError, match=r"cannot shut down: only root and .* may"):
                await Client(path).shutdown()
    assert enclosure.asked == []


async def test_members_and_the_daemons_own_user_act(path: Path) -> None:
    enclosure = FakeEnclosure()
    async with ControlServer(enclosure, path, credentials=CREDENTIALS):
        with identity(1000, OTHER, [ACT]):
            await Client(path).restore()
        with identity(990, OTHER):
            await Client(path).shutdown()
    assert enclosure.asked == ["restore", "shutdown"]
