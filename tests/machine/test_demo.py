"""The demonstration on tiny guests: its JSON, its power cut, and that nothing stays when it is ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.place import default_cache
from tests.kernel.test_rig import all_end, descendants

pytestmark = pytest.mark.timeout(400)

DEMO = [sys.executable, "-m", "rigs.demo", "--tiny"]


@pytest.fixture
def cache() -> Iterator[Path]:
    """A cache of its own, so that no other demonstration is in the way; the disks are shared.

    Its path is short: a longer one gets a link elsewhere, which only the next demonstration removes after a SIGKILL.
    """
    shared = default_cache()
    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        for image in shared.glob("tiny-*"):
            (Path(name) / image.name).symlink_to(image)
        yield Path(name)


def test_everything_comes_back_isolated_and_is_still_there_after_a_power_cut(cache: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--cache", str(cache), "--power-cut", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "RESTORED"
    services = {service["name"]: service for service in found["services"]}
    assert set(services) == {"record-db", "record", "imaging", "laboratory"}
    for service in services.values():
        assert service["state"] == "ready"
        assert service["seconds"] > 0
        assert service["proof"]
    assert services["record-db"]["seconds"] < services["record"]["seconds"]
    isolation = found["isolation"]
    assert isolation["proven"] is True
    assert isolation["tried"] > 500
    assert isolation["through"] == 0
    assert isolation["leaked"] == 0
    assert found["power_cut"]["found"] is True


@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 6.0), (signal.SIGKILL, 3.0)])
def test_however_it_is_ended_nothing_stays(cache: Path, number: signal.Signals, after: float) -> None:
    with subprocess.Popen([*DEMO, "--cache", str(cache)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        # The sandbox is up with more than the demonstration and its own child; from there on the moment is chance.
        while len(descendants(demo.pid)) <= 5:
            time.sleep(0.05)
        time.sleep(after)
        everything = descendants(demo.pid)
        os.kill(demo.pid, number)
        demo.wait()
        assert all_end(everything)
        assert str(cache) not in Path("/proc/mounts").read_text()
