from cleanroomd.model.status import RunState, ServiceState
from rigs.board import act_line, board, build_line, plain_lines
from rigs.report import Act
from rigs.scenario import BuildStep
from tests.unit.rigs.samples import state_of, status


def test_board_has_isolation_and_every_service_in_80_columns() -> None:
    shown = status(
        [state_of("record-db", ServiceState.READY), state_of("record", ServiceState.BOOTING)], state=RunState.RESTORING
    )
    text = board(shown, age=0.0, activity=["workstation: record-login"], columns=80).plain
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith("ISOLATED") for line in lines)
    assert any(line.startswith("RESTORING") and "1 of 2 ready" in line for line in lines)
    assert any("record-db" in line and "ready" in line for line in lines)
    assert any("record " in line and "about 20 s left" in line for line in lines)
    assert lines[-1] == "workstation: record-login"


def test_clocks_of_the_board_go_on_between_two_statuses() -> None:
    shown = status([state_of("record", ServiceState.BOOTING)], state=RunState.RESTORING)
    text = board(shown, age=12.0, activity=(), columns=80).plain
    assert "power-on 00:42 ago" in text
    assert "all ready in some seconds" in text
    assert "some seconds left" in text


def test_remaining_time_never_becomes_negative() -> None:
    shown = status([state_of("record", ServiceState.BOOTING)], state=RunState.RESTORING)
    assert "some seconds left" in board(shown, age=1000.0, activity=(), columns=80).plain


def test_lost_isolation_is_on_the_board_and_in_the_lines() -> None:
    before = status([state_of("record", ServiceState.READY)])
    after = status([state_of("record", ServiceState.READY)], proven=False)
    assert "NOT ISOLATED" in board(after, age=0.0, activity=(), columns=80).plain
    assert plain_lines(before, after) == ["NOT ISOLATED: the table is gone"]


def test_a_line_for_each_change_and_none_without() -> None:
    before = status([state_of("record", ServiceState.BOOTING)], state=RunState.RESTORING)
    after = status([state_of("record", ServiceState.READY)])
    assert plain_lines(None, before) == ["ISOLATED, proven", "record: booting, why booting", "RESTORING"]
    assert plain_lines(before, before) == []
    assert plain_lines(before, after) == ["record: ready, HTTP 200", "RESTORED"]


def test_what_a_machine_answered_cannot_drive_the_terminal() -> None:
    act = Act("record-login", "record", ok=False, proof="\x1b[2Jgone\nnext", seconds=1.0)
    assert act_line(act) == "record: FAILED: ?[2Jgone next (1.0 s)"


def test_build_line_shows_step_share_and_remaining_time() -> None:
    line = build_line(BuildStep("install imaging", 0.5, 80.0))
    assert line == "build [==========          ]  50%  install imaging; about 80 s left"
    assert build_line(BuildStep("fetch the kernel")) == "build: fetch the kernel"
