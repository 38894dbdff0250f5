"""The socket in the file system."""

import os
import socket
import stat
from pathlib import Path

import pytest

from cleanroomd.control.listener import LONGEST_PATH, listening
from cleanroomd.errors import ControlError


def leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_everybody_may_connect_to_be_told_why_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control"
    before = os.umask(0o077)
    try:
        with listening(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    finally:
        os.umask(before)
    assert not path.exists()


def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    leave_stale(path)
    with listening(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_on_which_somebody_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with listening(path):
        with pytest.raises(ControlError, match="another daemon answers"), listening(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is no socket"), listening(path):
        pass
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with listening(path):
        path.unlink()
        path.write_text("successor")
    assert path.exists()


def test_paths_are_measured_before_the_kernel_cuts_them(tmp_path: Path) -> None:
    room = LONGEST_PATH - len(os.fsencode(tmp_path)) - 1
    with listening(tmp_path / ("a" * room)):
        pass
    with pytest.raises(ControlError, match=f"{LONGEST_PATH + 1} bytes"), listening(tmp_path / ("a" * (room + 1))):
        pass


def test_a_directory_that_cannot_be_had_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    expected = pytest.raises(ControlError, match=r"cannot listen on .*: Not a directory")
    with expected, listening(tmp_path / "file" / "control"):
        pass
