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
from tests.machine.fire import SERVICES, reachable_everywhere

pytestmark = pytest.mark.timeout(600)

SEEDS = (1, 2)
KILLS = 50
"""At the least, over all seeds."""
ONCE = dict.fromkeys(SERVICES, 1)


@pytest.fixture
def root() -> Iterator[Path]:
    """An enclosure's root with the tiny hospital in its vault; its path is short, because of the sockets."""
    scenario = tiny_hospital()
    disks = scenario.build(default_cache(), lambda _step: None)
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        made = Path(name)
        for folder in ("vault", "logs", "state"):
            (made / folder).mkdir()
        for disk, image in disks.items():
            (made / f"vault/{disk}.qcow2").symlink_to(image)
        (made / "plan.toml").write_text(reachable_everywhere(scenario.plan.read_text()))
        yield made


@contextmanager
def inside(root: Path, deed: str, *arguments: str) -> Iterator[dict[str, Any]]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "tests.machine.daemon_inside", deed, str(write_end), str(root), *arguments]
    log = root / "logs/inside.log"
    with os.fdopen(read_end) as said, namespaces.sandbox(argv, log=log, pass_fds=(write_end,)):
        os.close(write_end)
        line = said.readline()
        assert line, "\n".join(path.read_text() for path in (root / "logs").iterdir())
        yield json.loads(line)


def sound(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images that are not."""
    assert {image["image"] for image in images} == set(SERVICES)
    return [image for image in images if image["check-errors"] or image["corruptions"]]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_killed_everything_is_restored_once_and_nothing_written_is_lost(
    root: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with inside(root, "fire", str(seed)) as found:
        acknowledged = found["acknowledged"]
        with capsys.disabled():
            kills, writes = found["kills"], sum(acknowledged.values())
            print(f"\nseed {seed}: a daemon that lived was killed {kills} times, {writes} writes were acknowledged")
        print(json.dumps(found, indent=1))
        assert found["kills"] >= KILLS / len(SEEDS)
        assert set(acknowledged) == set(SERVICES)
        assert found["denying"]

        only_the_daemon = found["daemon killed"]
        assert (only_the_daemon["state"], only_the_daemon["again"]) == ("RESTORED", "RESTORED")
        assert only_the_daemon["same machines"]
        assert only_the_daemon["same since"], "a service is ready since another moment after the daemon came back"
        assert only_the_daemon["launches"] == ONCE
        assert only_the_daemon["boots"] == ONCE
        # A daemon that is killed between the first instruction and the entry for it leaves none; never two.
        assert set(only_the_daemon["started"].values()) <= {1}
        assert only_the_daemon["failed attempts"] == []
        assert not any(only_the_daemon["missing"].values())
        assert only_the_daemon["left"] == {}
        assert sound(only_the_daemon["images"]) == []
        assert [image["leaks"] for image in only_the_daemon["images"]] == [0] * len(SERVICES)

        machines_too = found["all killed"]
        assert machines_too["state"] == "RESTORED"
        assert machines_too["launches"] == ONCE | dict.fromkeys(machines_too["victims"], 2)
        assert machines_too["boots"] == ONCE, "the console is that of the machine which runs now"

        after = found["after"]
        assert after["state"] == "RESTORED"
        assert after["launches"] == ONCE
        assert after["boots"] == ONCE
        assert not any(after["missing"].values())
        # A QEMU that is killed leaves clusters that it had taken and not yet used; they hold nothing.
        assert sound(after["images"]) == []


def test_a_second_daemon_on_one_root_is_refused_in_words(root: Path) -> None:
    with inside(root, "refuse") as found:
        assert found["state"] == "RESTORED"
        assert found["code"] == 1
        assert "another cleanroomd already works on" in found["said"]
        assert "Traceback" not in found["said"]
