"""`plan simulate`: the chart, the exit codes, and paper plans of thousands of services."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cleanroomd.cli.simulate import ROWS_AT_MOST, describe, simulate_plan
from cleanroomd.cli.verbs import cli
from tests.unit.restore.plans import MIB, plan, service

PLAN = Path(__file__).parents[3] / "scripts/rigs/tiny_plan.toml"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", "simulate", str(PLAN), *arguments])


def test_measured_durations_decide_where_there_are_any(tmp_path: Path) -> None:
    known = tmp_path / "durations.json"
    known.write_text(json.dumps({"record-db": 10, "record": 20, "imaging": "soon", "laboratory": -1}))
    found = json.loads(call("--json", "--durations", str(known), "--assume", "30s", "--slots", "4").stdout)
    ready = {each["name"]: each["ready"] for each in found["services"]}
    assert ready == {"record-db": 10, "record": 30, "imaging": 30, "laboratory": 30}
    assert found["assumed"] == ["laboratory", "imaging"]
    assert found["makespan"] == found["bound"] == 30


@pytest.mark.parametrize(("memory", "code"), [("512M", 0), ("400M", 3), ("300M", 1)])
def test_the_exit_code_is_the_verdict(memory: str, code: int) -> None:
    done = call("--memory", memory)
    assert done.exit_code == code
    assert done.stdout.startswith({0: "admissible", 3: "degraded", 1: "blocked"}[code])


def test_what_is_no_size_is_wrong_usage() -> None:
    done = call("--memory", "12 potatoes")
    assert done.exit_code == 2
    assert '"12 potatoes" is no size' in done.stderr


def test_durations_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    done = call("--durations", str(tmp_path / "none.json"))
    assert done.exit_code == 1
    assert "cannot read the durations" in done.stderr


def test_ten_thousand_services_fit_on_a_screen() -> None:
    services = [
        service(f"s{number}", number=number + 1, depends_on=(f"s{number // 2}",) if number else ())
        for number in range(10_000)
    ]
    of = plan(*services)
    found = simulate_plan(of, slots=8, memory=10_000 * 512 * MIB, durations={}, assume=60.0)
    assert len(found.spans) == 10_000
    assert found.makespan >= found.bound
    lines = list(describe(of, found, slots=8, limited=True))
    assert len(lines) < ROWS_AT_MOST + 10
    assert all(len(line) <= 80 for line in lines)
