"""Who gets a copy of the socket, and who may stand at a path; without any netlink."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.keeper import server
from cleanroomd.keeper.client import owning_socket
from cleanroomd.keeper.deadline import Deadline
from cleanroomd.keeper.tables import NETLINK_NETFILTER


@contextmanager
def serving(path: Path, handed_out: socket.socket) -> Iterator[None]:
    """A keeper without tables, in a thread."""
    stop, alarm = socket.socketpair()
    with stop, alarm, server.place(path) as listener:
        closing = Deadline(path.with_name("deadline"))
        thread = threading.Thread(target=server.serve, args=(listener, handed_out, stop, closing))
        thread.start()
        try:
            yield
        finally:
            alarm.send(b"x")
            thread.join()


@pytest.fixture
def netlink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as opened:
        opened.bind((0, 0))
        yield opened


def test_every_copy_is_the_same_socket(tmp_path: Path, netlink: socket.socket) -> None:
    with serving(tmp_path / "keeper", netlink):
        for _ in range(2):
            with owning_socket(tmp_path / "keeper") as copy:
                assert copy.getsockname() == netlink.getsockname()
                assert not copy.get_inheritable()


def test_another_user_gets_nothing(tmp_path: Path, netlink: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper compares the peer's uid with its own; here all peers seem to be somebody else."""
    own = os.geteuid()
    monkeypatch.setattr(server, "peer_uid", lambda _: own + 1)
    with serving(tmp_path / "keeper", netlink), pytest.raises(IsolationError, match="the keeper refused"):
        owning_socket(tmp_path / "keeper")


def test_a_socket_of_another_kind_is_refused(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        serving(tmp_path / "keeper", other),
        pytest.raises(IsolationError, match="handed out something else"),
    ):
        owning_socket(tmp_path / "keeper")


def test_what_a_killed_keeper_left_is_replaced(tmp_path: Path, netlink: socket.socket) -> None:
    path = tmp_path / "keeper"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    with serving(path, netlink), owning_socket(path):
        pass
    assert not path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "keeper"
    path.write_text("precious")
    with pytest.raises(IsolationError, match="is in the way"), server.place(path):
        pass
    assert path.read_text() == "precious"


def test_the_second_of_two_refuses(tmp_path: Path, netlink: socket.socket) -> None:
    path = tmp_path / "keeper"
    with serving(path, netlink):
        with pytest.raises(IsolationError, match="another keeper serves"), server.place(path):
            pass
        with owning_socket(path):
            pass
