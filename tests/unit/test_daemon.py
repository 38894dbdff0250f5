"""What the daemon tells its service manager, and what its command line says without one."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cleanroomd.daemon import SystemdNotice, main
from cleanroomd.model.status import IsolationStatus, Status
from tests.unit.engine.test_publisher import status


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield made


def isolated(of: Status, *, proven: bool) -> Status:
    problem = "" if proven else "the rules could not be applied"
    return replace(of, isolation=IsolationStatus(proven, None, 1, "dark", 0, problem))


def test_ready_is_said_once_and_only_when_the_rules_are_proven(manager: socket.socket) -> None:
    notice = SystemdNotice()
    notice(isolated(status(), proven=False))
    first = manager.recv(4096).decode().splitlines()
    assert "READY=1" not in first
    assert "WATCHDOG=1" in first
    notice(isolated(status(), proven=True))
    assert "READY=1" in manager.recv(4096).decode().splitlines()
    notice(isolated(status(), proven=True))
    last = manager.recv(4096).decode().splitlines()
    assert "READY=1" not in last
    assert any(line.startswith("STATUS=RESTORING: 0 of 1 ready") for line in last)
    notice.close()
    assert manager.recv(4096) == b"STOPPING=1"


def test_a_dry_run_says_who_stays_out_and_touches_nothing(tmp_path: Path) -> None:
    plan = Path(__file__).parents[2] / "scripts/rigs/tiny_plan.toml"
    done = CliRunner().invoke(main, ["--plan", str(plan), "--root", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0
    assert done.output.startswith("blocked: record-db")
    assert "record-db cannot start: disk record-db-system: is not in the vault" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_staged_images_ends_with_every_flow_open(tmp_path: Path) -> None:
    plan = Path(__file__).parents[2] / "scripts/rigs/tiny_plan.toml"
    vault = tmp_path / "vault"
    vault.mkdir()
    for name in ("record-db", "record", "imaging", "laboratory"):
        (vault / f"{name}-system.raw").write_bytes(b"image")
    done = CliRunner().invoke(main, ["--plan", str(plan), "--root", str(tmp_path), "--dry-run", "--unsealed"])
    assert done.exit_code == 0
    assert done.output.startswith("admissible: 4 services")
    steps = [line[14:] for line in done.output.splitlines()]
    assert steps.index("run record-db") < steps.index("run record")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["vault", *(f"{name}-system.raw" for name in ("record-db", "record", "imaging", "laboratory"))]
    )


def test_a_plan_with_problems_ends_in_words(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("[enclosure]\nname = 5\n")
    done = CliRunner().invoke(main, ["--plan", str(tmp_path / "plan.toml"), "--root", str(tmp_path), "--dry-run"])
    assert done.exit_code == 1
    assert "problem" in done.output
    assert "Traceback" not in done.output


def test_a_reload_is_told_with_its_moment_and_its_end(manager: socket.socket) -> None:
    """sd_notify(3): RELOADING=1 with MONOTONIC_USEC, then READY=1; before the first READY neither."""
    notice = SystemdNotice()
    notice.reloading()
    notice.reloaded()
    notice(isolated(status(), proven=True))
    assert b"READY=1" in manager.recv(4096)
    notice.reloading()
    before = time.monotonic_ns() // 1000
    first, moment = manager.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    assert 0 < int(moment.removeprefix("MONOTONIC_USEC=")) <= before
    notice.reloaded()
    assert manager.recv(4096) == b"READY=1"
    notice.close()


@pytest.mark.parametrize("part", ["state", "run/machines"])
def test_a_root_that_cannot_be_used_is_refused_in_words(tmp_path: Path, part: str) -> None:
    plan = Path(__file__).parents[2] / "scripts/rigs/tiny_plan.toml"
    (tmp_path / part).parent.mkdir(exist_ok=True)
    (tmp_path / part).write_text("a file")
    done = CliRunner().invoke(main, ["--plan", str(plan), "--root", str(tmp_path), "--unsealed"])
    assert done.exit_code == 1
    assert "cannot use" in done.output
    assert "Traceback" not in done.output
