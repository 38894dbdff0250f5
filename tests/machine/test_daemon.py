"""The daemon under fire: killed at random moments of a restoration, with its rules attacked while it is away."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rigs import namespaces
from rigs.place import default_cache
from rigs.scenario import tiny_hospital

pytestmark = pytest.mark.timeout(400)

SERVICES = {"record-db", "record", "imaging", "laboratory"}


@pytest.fixture
def root() -> Iterator[Path]:
    """An enclosure's root with the tiny hospital in its vault; its path is short, because of the sockets."""
    scenario = tiny_hospital()
    disks = scenario.build(default_cache(), lambda _step: None)
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        made = Path(name)
        (made / "vault").mkdir()
        (made / "logs").mkdir()
        for disk, image in disks.items():
            (made / f"vault/{disk}.qcow2").symlink_to(image)
        (made / "plan.toml").write_bytes(scenario.plan.read_bytes())
        yield made


@contextmanager
def inside(root: Path, deed: str, *arguments: str) -> Iterator[dict[str, Any]]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "tests.machine.daemon_inside", deed, str(write_end)]
    argv += [str(root), str(root / "logs"), *arguments]
    log = root / "logs/inside.log"
    with os.fdopen(read_end) as said, namespaces.sandbox(argv, log=log, pass_fds=(write_end,)):
        os.close(write_end)
        line = said.readline()
        assert line, "\n".join(path.read_text() for path in (root / "logs").iterdir())
        yield json.loads(line)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_daemon_that_is_killed_again_and_again_restores_everything_once(root: Path, seed: int) -> None:
    with inside(root, "fire", str(seed), "6") as found:
        assert found["killed"] > 3
        assert found["state"] == "RESTORED"
        assert found["again"] == "RESTORED"
        assert set(found["machines"]) == SERVICES
        assert found["machines again"] == found["machines"]
        assert found["since"], "a service is ready since another moment after the daemon came back"
        assert all(count == 1 for count in found["first instructions"].values()), found["first instructions"]
        assert found["denying"] == [True]
        assert "written" in found["written"]
        assert found["read"] == ["patient-1"]


def test_a_second_daemon_on_one_root_is_refused_in_words(root: Path) -> None:
    with inside(root, "refuse") as found:
        assert found["state"] == "RESTORED"
        assert found["code"] == 1
        assert "another cleanroomd already works on" in found["said"]
        assert "Traceback" not in found["said"]
