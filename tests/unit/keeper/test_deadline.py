"""The keeper's deadline: kept whatever happens to it, and not a moment longer than asked for."""

import errno
import socket
from pathlib import Path

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.keeper import deadline as module
from cleanroomd.keeper.client import deadline_at, owning_socket
from cleanroomd.keeper.deadline import JUST_ASKING, MESSAGE, NOTHING, Deadline
from cleanroomd.model.observed import Deadline as Held
from tests.unit.keeper.test_server import netlink, serving

__all__ = ["netlink"]

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "boottime", found)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keeper.deadline"


def request(at: int) -> bytes:
    return MESSAGE.pack(b"up0", at)


def test_it_is_kept_at_its_instant_and_once(clock: Clock, path: Path) -> None:
    taken: list[str] = []
    deadline = Deadline(path, act=taken.append)
    assert deadline.wait() is None
    assert deadline.ask(request(clock.now + 2 * SECOND)) == request(clock.now + 2 * SECOND)
    for _ in range(2):
        deadline.keep()
        assert taken == []
        assert deadline.wait() == 1.0, "never longer, since the machine may sleep meanwhile"
        clock.now += SECOND - 1
    assert deadline.wait() == pytest.approx(2e-9)
    clock.now += 2
    deadline.keep()
    deadline.keep()
    assert taken == ["up0"]
    assert deadline.wait() is None
    assert not path.exists()


def test_the_next_keeper_takes_it_up(clock: Clock, path: Path) -> None:
    taken: list[str] = []
    Deadline(path, act=taken.append).ask(request(clock.now + SECOND))
    clock.now += 5 * SECOND
    successor = Deadline(path, act=taken.append)
    assert successor.wait() == 0
    successor.keep()
    assert taken == ["up0"]
    assert Deadline(path, act=taken.append).wait() is None


def test_what_fails_is_tried_again(clock: Clock, path: Path) -> None:
    tried: list[str] = []

    def fail(name: str) -> None:
        tried.append(name)
        raise OSError(errno.EBUSY, "busy")

    deadline = Deadline(path, act=fail)
    deadline.ask(request(clock.now))
    for expected in (1, 1, 2):
        deadline.keep()
        assert len(tried) == expected
        clock.now += SECOND // 2
    assert path.exists()


def test_a_newer_one_takes_its_place_and_asking_changes_nothing(clock: Clock, path: Path) -> None:
    taken: list[str] = []
    deadline = Deadline(path, act=taken.append)
    deadline.ask(request(clock.now + SECOND))
    deadline.ask(request(clock.now + 3 * SECOND))
    assert deadline.ask(MESSAGE.pack(b"", JUST_ASKING)) == request(clock.now + 3 * SECOND)
    clock.now += 2 * SECOND
    deadline.keep()
    assert taken == []
    assert MESSAGE.unpack(deadline.ask(request(NOTHING)))[1] == NOTHING
    clock.now += 2 * SECOND
    deadline.keep()
    assert taken == []


@pytest.mark.parametrize("garbage", [b"", b"short", MESSAGE.pack(b"up0", 1) + b"more"])
def test_a_file_or_request_of_another_size_is_no_deadline(clock: Clock, path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    deadline = Deadline(path)
    assert deadline.wait() is None
    with pytest.raises(ValueError, match="size"):
        deadline.ask(garbage)


def test_what_cannot_be_written_down_is_not_promised(clock: Clock, tmp_path: Path) -> None:
    deadline = Deadline(tmp_path / "gone" / "keeper.deadline")
    with pytest.raises(OSError, match="No such file"):
        deadline.ask(request(clock.now + SECOND))
    assert deadline.wait() is None


def test_a_daemon_asks_over_the_socket(tmp_path: Path, netlink: socket.socket) -> None:
    place, far = tmp_path / "keeper", Held("up0", 86_400_000.123)
    with serving(place, netlink):
        assert deadline_at(place) is None
        assert deadline_at(place, hold=far) == far
        assert deadline_at(place) == far
        with owning_socket(place) as copy:
            assert copy.getsockname() == netlink.getsockname()
        assert deadline_at(place, interface="up0") is None
    with pytest.raises(IsolationError, match="cannot reach the keeper"):
        deadline_at(place)


def test_a_client_that_keeps_silent_holds_nobody_up_for_long(tmp_path: Path, netlink: socket.socket) -> None:
    place = tmp_path / "keeper"
    with serving(place, netlink), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(place))
        with owning_socket(place) as copy:
            assert copy.getsockname() == netlink.getsockname()
