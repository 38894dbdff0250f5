"""Machines that are started and stopped again and again leave nothing behind in the daemon nor in its folders."""

import pytest

from rigs.bench import cycles


@pytest.mark.timeout(300)
def test_cycles_of_start_and_stop_leave_nothing_behind() -> None:
    found = cycles.turn(30, 15)
    early, late = found["readings"]
    assert (early["cycles"], late["cycles"], len(found["seconds"])) == (15, 30, 30)
    assert late["descriptors"] == early["descriptors"]
    assert late["processes"] == early["processes"] == 0
    assert late["files"] == early["files"]
    assert "run/machines/button0/console.log" in late["files"]
    assert not [path for path in late["files"] if path.endswith((".sock", "machine.json", "/pid"))]
