"""`systemctl reload`: a changed plan comes into force, a broken one does not and says why."""

import pytest

from rigs.nspawn.container import Container
from tests.appliance.enclosure import (
    DAEMON,
    FILES,
    LABORATORY,
    PLAN,
    eventually,
    journal,
    main_pid,
    restarts,
    services,
    status,
    write_plan,
)

pytestmark = pytest.mark.timeout(400)


def test_a_changed_plan_comes_into_force_without_a_restart(fresh: Container) -> None:
    daemon = main_pid(fresh)
    assert "laboratory" not in services(fresh)
    write_plan(fresh, FILES[PLAN] + LABORATORY)
    fresh.systemctl("reload", DAEMON)
    eventually(lambda: set(services(fresh)) == {"record", "imaging", "laboratory"}, "the new plan", fresh)
    assert status(fresh)["isolation"]["proven"]
    assert fresh.property(DAEMON, "ActiveState") == "active"
    assert (main_pid(fresh), restarts(fresh)) == (daemon, 0)


def test_a_service_that_the_plan_no_longer_has_goes(fresh: Container) -> None:
    write_plan(
        fresh, FILES[PLAN].replace('"imaging"', '"laboratory"').replace('"imaging-system"', '"laboratory-system"')
    )
    fresh.systemctl("reload", DAEMON)
    eventually(lambda: set(services(fresh)) == {"record", "laboratory"}, "the new plan", fresh)


def test_a_broken_plan_leaves_the_old_one_in_force_and_the_journal_says_why(fresh: Container) -> None:
    daemon = main_pid(fresh)
    write_plan(fresh, FILES[PLAN].replace('memory = "128M"', 'memory = "12 potatoes"') + LABORATORY)
    # Whether systemctl itself fails is the unit's choice; what counts is what is in force, and what is said.
    fresh.run("systemctl", "reload", DAEMON)
    eventually(lambda: "12 potatoes" in journal(fresh), "the reason", fresh)
    assert set(services(fresh)) == {"record", "imaging"}
    assert "12 potatoes" in fresh.run("systemctl", "status", "--no-pager", "--full", DAEMON).stdout
    assert fresh.property(DAEMON, "ActiveState") == "active"
    assert (main_pid(fresh), restarts(fresh)) == (daemon, 0)

    write_plan(fresh, FILES[PLAN] + LABORATORY)
    fresh.systemctl("reload", DAEMON)
    eventually(lambda: "laboratory" in services(fresh), "the mended plan", fresh)
