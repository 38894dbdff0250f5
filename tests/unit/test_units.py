"""The systemd units, as far as they can be read without systemd."""

from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "units"


def read(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


@pytest.mark.parametrize("name", ["cleanroomd.service", "cleanroom-keeper.service"])
def test_the_manager_waits_for_the_rules_and_restarts_without_limit(name: str) -> None:
    unit = read(name)
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["Restart"] == "always"


def test_the_keeper_comes_before_any_network_and_before_the_daemon() -> None:
    before = read("cleanroom-keeper.service")["Unit"]["Before"].split()
    assert {"network-pre.target", "cleanroomd.service"} <= set(before)
    assert "cleanroom-keeper.service" in read("cleanroomd.service")["Unit"]["After"].split()


def test_a_reload_reads_the_plan_again_and_restarts_nothing() -> None:
    assert read("cleanroomd.service")["Service"]["ExecReload"] == "kill -HUP $MAINPID"


def test_restarting_the_daemon_ends_no_machine() -> None:
    assert read("cleanroomd.service")["Service"]["KillMode"] == "process"


def test_a_keeper_that_dies_dies_alone() -> None:
    """Restarted together with it, the daemon would let go of the only other copy of the owning socket."""
    unit = read("cleanroomd.service")["Unit"]
    assert unit["Wants"] == "cleanroom-keeper.service"
    assert not {"Requires", "BindsTo", "PartOf"} & set(unit)
