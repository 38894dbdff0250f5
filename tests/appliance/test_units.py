"""The real units under systemd 257: order, readiness, restarts, watchdog."""

import os
import re
import signal
import subprocess

import pytest

from rigs.nspawn.container import Container
from tests.appliance.enclosure import (
    DAEMON,
    KEEPER,
    WATCHDOG,
    entries,
    eventually,
    journal,
    main_pid,
    restarts,
    status,
)

pytestmark = pytest.mark.timeout(400)


def test_power_on_ends_with_both_units_active_and_words_for_their_state(shared: Container) -> None:
    assert shared.run("systemctl", "is-system-running").stdout == "running\n"
    for unit in (KEEPER, DAEMON):
        assert shared.property(unit, "ActiveState") == "active"
        assert shared.property(unit, "Type").startswith("notify")
        assert restarts(shared, unit) == 0
    assert shared.property(KEEPER, "StatusText") == "The rule tables are owned"
    assert re.fullmatch(r"[A-Z]+: \d of 2 ready.*", shared.property(DAEMON, "StatusText"))
    assert status(shared)["isolation"]["proven"]


def test_the_rules_are_there_before_the_network_and_before_the_daemon(shared: Container) -> None:
    def since(unit: str, name: str) -> int:
        return int(shared.property(unit, name))

    owned = since(KEEPER, "ActiveEnterTimestampMonotonic")
    assert 0 < owned <= since("network-pre.target", "ActiveEnterTimestampMonotonic")
    assert owned <= since(DAEMON, "InactiveExitTimestampMonotonic")


def test_the_unit_is_not_ready_while_nobody_owns_the_rules(fresh: Container) -> None:
    fresh.systemctl("stop", DAEMON, KEEPER)
    fresh.systemctl("mask", "--runtime", KEEPER)
    fresh.systemctl("start", "--no-block", DAEMON)
    eventually(lambda: fresh.property(DAEMON, "ActiveState") != "inactive", "the daemon starts", fresh)
    eventually(lambda: "ready" in fresh.property(DAEMON, "StatusText"), "the daemon says how it is", fresh)
    assert fresh.property(DAEMON, "ActiveState") == "activating"
    assert not status(fresh)["isolation"]["proven"]
    fresh.systemctl("unmask", "--runtime", KEEPER)
    fresh.systemctl("start", KEEPER)
    eventually(lambda: fresh.property(DAEMON, "ActiveState") == "active", "ready with a keeper", fresh)
    assert status(fresh)["isolation"]["proven"]


def test_a_restart_of_the_daemon_touches_neither_the_keeper_nor_the_rules_nor_a_machine(fresh: Container) -> None:
    keeper, daemon, rules = main_pid(fresh, KEEPER), main_pid(fresh), _tables(fresh)
    assert len(rules.splitlines()) == 2
    group = f"/sys/fs/cgroup{fresh.property(DAEMON, 'ControlGroup')}/cgroup.procs"
    with fresh.started("sh", "-c", f"echo $$ >{group} && exec sleep infinity") as machine:
        eventually(lambda: "sleep" in fresh.run("systemctl", "status", DAEMON).stdout, "the stand-in", fresh)
        fresh.systemctl("stop", DAEMON)
        assert fresh.property(DAEMON, "Result") == "success"
        assert _tables(fresh) == rules
        fresh.systemctl("start", DAEMON)
        assert machine.poll() is None
    assert main_pid(fresh, KEEPER) == keeper
    assert restarts(fresh, KEEPER) == 0
    assert main_pid(fresh) != daemon
    assert status(fresh)["isolation"]["proven"]


def test_a_keeper_that_dies_comes_back_and_the_daemon_stays(fresh: Container) -> None:
    daemon = main_pid(fresh)
    fresh.systemctl("kill", "--signal=KILL", KEEPER)
    eventually(lambda: restarts(fresh, KEEPER) == 1, "systemd brings the keeper back", fresh)
    eventually(lambda: fresh.property(KEEPER, "ActiveState") == "active", "the keeper owns the rules", fresh)
    eventually(lambda: status(fresh)["isolation"]["proven"], "proven again", fresh)
    assert main_pid(fresh) == daemon


def test_keeper_and_daemon_may_die_at_one_moment_and_nobody_can_touch_the_rules(fresh: Container) -> None:
    """systemd holds the owning socket meanwhile: a flush of everything skips the tables, a delete is refused."""
    rules = _tables(fresh)
    for unit in (KEEPER, DAEMON):
        fresh.run("mkdir", "-p", f"/run/systemd/system/{unit}.d")
        fresh.run("sh", "-c", f"printf '[Service]\\nRestartSec=5\\n' >/run/systemd/system/{unit}.d/late.conf")
    fresh.systemctl("daemon-reload")
    assert fresh.property(KEEPER, "NFileDescriptorStore") == "1"
    fresh.systemctl("kill", "--signal=KILL", "--kill-whom=main", KEEPER, DAEMON)
    eventually(lambda: not main_pid(fresh, KEEPER) and not main_pid(fresh), "both are dead", fresh)
    _nft(fresh, "flush", "ruleset")
    refused = _nft(fresh, "delete", "table", "inet", "cleanroom")
    assert not main_pid(fresh, KEEPER), "the keeper was back too early for this to mean anything"
    assert _tables(fresh) == rules
    assert "Operation not permitted" in refused
    eventually(lambda: fresh.property(DAEMON, "ActiveState") == "active", "both are back", fresh)
    assert status(fresh)["isolation"]["proven"]
    assert _tables(fresh) == rules
    assert fresh.property(KEEPER, "NFileDescriptorStore") == "1"


def test_a_daemon_that_stalls_is_killed_by_the_watchdog_and_comes_back_ready(fresh: Container) -> None:
    daemon = main_pid(fresh)
    assert fresh.property(DAEMON, "WatchdogUSec") == f"{WATCHDOG}s"
    os.kill(fresh.pid_here(daemon), signal.SIGSTOP)
    eventually(lambda: restarts(fresh) == 1, "the watchdog ends it", fresh)
    eventually(lambda: fresh.property(DAEMON, "ActiveState") == "active", "ready again", fresh)
    assert "Watchdog timeout" in journal(fresh)
    assert main_pid(fresh) not in {0, daemon}
    assert status(fresh)["isolation"]["proven"]
    assert restarts(fresh, KEEPER) == 0


def test_a_daemon_that_is_killed_comes_back_ready(fresh: Container) -> None:
    fresh.systemctl("kill", "--signal=KILL", "--kill-whom=main", DAEMON)
    eventually(lambda: restarts(fresh) == 1, "systemd brings it back", fresh)
    eventually(lambda: fresh.property(DAEMON, "ActiveState") == "active", "ready again", fresh)
    begun = entries(fresh, "MESSAGE_ID=d8c7b6a594834f72a1b0c9d8e7f6a50a")
    assert len({entry["_PID"] for entry in begun}) == 2


def _tables(container: Container) -> str:
    """The rule tables in the container's network."""
    return _nft(container, "list", "tables")


def _nft(container: Container, *command: str) -> str:
    """What nft of outside says in the container's network, refusals included."""
    done = subprocess.run(
        ["nsenter", f"--target={container.leader}", "--net", "nft", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
