"""What a service manager is given to hold, and what of it is taken back."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroomd.keeper import store

CHILD = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from cleanroomd.keeper import store
found = store.stored()
print(found and found.getsockname(), sorted(os.listdir("/proc/self/fd"))[:5])
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield made


def test_the_manager_gets_a_copy_with_its_name(manager: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as owning:
        owning.bind(str(tmp_path / "owning"))
        store.store(owning)
        words, descriptors, _, _ = socket.recv_fds(manager, 4096, 2)
    assert words == b"FDSTORE=1\nFDNAME=owning\nFDPOLL=0"
    with socket.socket(fileno=descriptors[0]) as copy:
        assert copy.getsockname() == str(tmp_path / "owning")


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    store.notify("READY=1")


def handed(names: str, *handles: int) -> str:
    """What a keeper finds that is started with `handles` as descriptors 3 and on."""
    moves = "".join(f" {number}<&{handle}" for number, handle in enumerate(handles, start=3))
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LISTEN_FDS": str(len(handles)),
        "LISTEN_FDNAMES": names,
    }
    command = ["bash", "-c", f'exec "$0" -c "$1"{moves}', sys.executable, CHILD]
    return subprocess.run(
        command, env=environment, pass_fds=handles, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_was_stored_comes_back_and_other_things_are_closed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as owning, (tmp_path / "file").open("wb") as file:
        owning.bind(str(tmp_path / "o"))
        high, other = os.dup2(owning.fileno(), 50), os.dup2(file.fileno(), 51)
        try:
            assert handed("other:owning", other, high).startswith(str(tmp_path / "o"))
            assert handed("other", other).startswith("None")
            assert handed("owning", other).startswith("None")
        finally:
            os.close(high)
            os.close(other)


def test_what_is_meant_for_another_process_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert store.stored() is None
