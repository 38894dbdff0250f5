"""cleanroomctl against a daemon on a real socket."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cleanroomd import __version__
from cleanroomd.cli.verbs import Verbs, cli
from cleanroomd.errors import CleanroomError
from cleanroomd.model.status import RunState, ServiceState
from tests.unit.control.fake import STATUS, FakeEnclosure, served, with_service

REPOSITORY = Path(__file__).parents[3]
ENTRIES = [
    {"time": 1.0, "event": "power-on", "text": "power-on"},
    {"time": 2.0, "event": "step", "service": "imaging", "text": "run imaging", "attempt": 1},
]


@pytest.fixture
def enclosure() -> FakeEnclosure:
    return FakeEnclosure(entries=ENTRIES)


@pytest.fixture
def path(enclosure: FakeEnclosure, tmp_path: Path) -> Iterator[Path]:
    with served(enclosure, tmp_path / "control"):
        yield tmp_path / "control"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments], env={"CLEANROOM_CONTROL": str(path)}, catch_exceptions=False)


def command(path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cleanroomd.cli.main", "--socket", str(path), *arguments]


def test_status_is_the_document_or_its_picture(path: Path) -> None:
    shown = run(path, "status")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Caisson 1, GHT Vaucluse")
    assert "\x1b" not in shown.stdout
    document = run(path, "status", "--json").stdout
    assert json.loads(document) == json.loads(json.dumps(asdict(STATUS)))
    assert document.count("\n") == 1


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (RunState.RESTORING, 0),
        (RunState.RESTORED, 0),
        (RunState.STOPPED, 0),
        (RunState.DEGRADED, 3),
        (RunState.HALTED, 1),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_code_of_status_is_the_state_of_the_run(
    enclosure: FakeEnclosure, path: Path, state: RunState, code: int, options: list[str]
) -> None:
    enclosure.current = replace(STATUS, state=state)
    assert run(path, "status", *options).exit_code == code


READY = with_service(STATUS, "record", ServiceState.READY, proof="HTTP 200", elapsed=70.0)
FAILED = replace(
    with_service(STATUS, "record", ServiceState.FAILED, reason="no boot device"), next_action="look at its disk"
)
DOWN = with_service(with_service(STATUS, "record", ServiceState.STOPPED), "imaging", ServiceState.STOPPED)


def test_start_waits_and_tells(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [with_service(STATUS, "record", ServiceState.STARTING), READY]
    result = run(path, "start", "record")
    assert result.exit_code == 0
    assert result.stdout == "record is ready, 01:10 after power-on: HTTP 200\n"
    assert result.stderr.startswith("asked to start record\n")
    assert "record: ready, HTTP 200\n" in result.stderr
    assert enclosure.asked == ["start record"]


def test_start_that_fails_says_why_and_what_next(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [FAILED]
    result = run(path, "start", "record")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.endswith("cannot start record: no boot device\n  look at its disk\n")


def test_outcomes_in_json(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [READY]
    assert json.loads(run(path, "start", "record", "--json").stdout) == {
        "request": "asked to start record",
        "outcome": "record is ready, 01:10 after power-on: HTTP 200",
    }
    enclosure.current, enclosure.answers = STATUS, [FAILED]
    result = run(path, "start", "--json", "record")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"error": "cannot start record: no boot device", "hint": "look at its disk"}
    assert json.loads(run(path, "start", "--no-wait", "--json", "record").stdout)["outcome"] is None


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["start", "record"], "start record"),
        (["stop", "record"], "stop record"),
        (["restore"], "restore"),
        (["shutdown"], "shutdown"),
    ],
)
def test_no_wait_asks_and_returns(enclosure: FakeEnclosure, path: Path, arguments: list[str], asked: str) -> None:
    result = run(path, *arguments, "--no-wait")
    assert (result.exit_code, result.stdout) == (0, f"asked to {asked}\n")
    assert enclosure.asked == [asked]


def test_stop_and_shutdown_wait_for_the_machines(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [with_service(STATUS, "record", ServiceState.STOPPING), DOWN]
    assert run(path, "stop", "record").stdout == "record is stopped\n"
    enclosure.current = STATUS
    assert run(path, "shutdown").stdout == "every machine is stopped\n"


def test_restore_tells_how_the_run_ended(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.answers = [replace(READY, state=RunState.RESTORED, restored_after=70.0)]
    result = run(path, "restore")
    assert (result.exit_code, result.stdout) == (0, "every service is ready, 01:10 after power-on\n")


def test_an_outcome_that_only_settles_is_waited_for(
    enclosure: FakeEnclosure, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cleanroomd.cli.outcome.SETTLE", 0.1)
    monkeypatch.setattr("cleanroomd.cli.carry_out.SETTLE", 0.1)
    enclosure.current = replace(FAILED, state=RunState.DEGRADED)
    result = run(path, "restore")
    assert result.exit_code == 3
    assert result.stdout == "every required service is ready; record is failed\n"


def test_refusals_and_slips_are_told_in_words(enclosure: FakeEnclosure, path: Path) -> None:
    result = run(path, "start", "recordx")
    assert result.exit_code == 1
    assert result.stderr == "cannot start recordx: the plan has no such service\n  did you mean record?\n"
    enclosure.refusal = CleanroomError("cannot stop record: \x1b[2J it is being saved")
    result = run(path, "stop", "record")
    assert result.stderr == "cannot stop record: ?[2J it is being saved\n"


def test_the_log_is_lines_or_objects(path: Path) -> None:
    assert [line[21:] for line in run(path, "log").stdout.splitlines()] == ["power-on", "imaging: run imaging"]
    objects = [json.loads(line) for line in run(path, "log", "--json").stdout.splitlines()]
    assert [entry["event"] for entry in objects] == ["power-on", "step"]
    assert objects[1]["fields"] == {"attempt": "1"}


def logged(path: Path, *options: str) -> list[str]:
    return [line[21:] for line in run(path, "log", *options).stdout.splitlines()]


def test_the_end_of_the_log_and_what_is_about_one_service(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.entries = [{"time": 1.0, "text": str(number)} for number in range(30)] + ENTRIES
    assert logged(path, "--lines", "1") == ["imaging: run imaging"]
    assert logged(path, "-n0") == []
    assert len(logged(path)) == len(logged(path, "-n", "all")) == len(logged(path, "-n", "999")) == 32
    assert logged(path, "--service", "imaging") == ["imaging: run imaging"]
    refused = run(path, "log", "--service", "imagign")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "cannot read the journal: the plan has no such service\n  did you mean imaging?\n"


@pytest.mark.parametrize(("options", "first"), [([], "20"), (["-n", "2"], "28"), (["-n", "all"], "0")])
def test_a_log_that_is_followed_begins_near_its_end(
    enclosure: FakeEnclosure, path: Path, options: list[str], first: str
) -> None:
    enclosure.entries = [{"time": 1.0, "text": str(number)} for number in range(30)]
    with start(command(path, "log", "--follow", *options), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()[21:] == f"{first}\n"
        process.terminate()


@pytest.mark.parametrize("lines", ["-1", "few", "", "1e3", "9" * 30])
def test_what_is_no_number_of_lines_is_wrong_usage(path: Path, lines: str) -> None:
    result = run(path, "log", "--lines", lines)
    assert result.exit_code == 2
    assert "is no number of entries" in result.stderr


@pytest.mark.parametrize("arguments", [["status"], ["start", "x"], ["stop", "x"], ["restore"], ["shutdown"], ["log"]])
def test_no_daemon_is_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    result = run(tmp_path / "nowhere", *arguments)
    assert result.exit_code == 1
    message, hint = result.stderr.splitlines()
    assert message == f"cannot reach cleanroomd: nothing answers on {tmp_path}/nowhere"
    assert hint.startswith("  `systemctl status cleanroomd` says whether it runs")
    in_json = json.loads(run(tmp_path / "nowhere", *arguments, "--json").stdout)
    assert in_json["error"] == message


@pytest.mark.parametrize("path", ["x" * 200, "/dev/null"])
def test_a_socket_that_cannot_be_is_told_in_words(path: str) -> None:
    result = run(Path(path), "status")
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot reach cleanroomd: ")


def test_a_socket_that_may_not_be_reached_is_no_dead_daemon(path: Path) -> None:
    class Refused:
        def __enter__(self) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        def __exit__(self, *_: object) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cleanroomd.control.client.once.socket.socket", lambda *_: Refused())
        result = run(path, "status")
    assert result.exit_code == 1
    assert result.stderr == f"cannot reach cleanroomd: Permission denied on {path}\n  use sudo\n"


@pytest.mark.parametrize(
    ("arguments", "meant"), [(["statsu"], "status"), (["plan", "shw"], "show"), (["status", "--jsn"], "--json")]
)
def test_a_slip_is_answered_with_what_was_meant(tmp_path: Path, arguments: list[str], meant: str) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert f"'{meant}'" in result.stderr


def test_the_list_of_verbs_cuts_none_of_them_short(tmp_path: Path) -> None:
    for group in ([], ["plan"], ["uplink"]):
        shown = run(tmp_path, *group, "--help").stdout
        assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("arguments", [["bogus"], ["start"], ["status", "extra"], ["--nonsense"]])
def test_wrong_usage_is_two(tmp_path: Path, arguments: list[str]) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_version_and_every_help(tmp_path: Path) -> None:
    assert __version__ in run(tmp_path, "--version").stdout
    group = cli
    assert isinstance(group, Verbs)
    for verb in group.list_commands(click.Context(group)):
        result = run(tmp_path, verb, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: cli {verb}")


def test_the_environment_names_the_socket_and_the_option_wins(path: Path, tmp_path: Path) -> None:
    environment = {"CLEANROOM_CONTROL": str(tmp_path / "nowhere")}
    arguments = ["--socket", str(path), "status"]
    assert CliRunner().invoke(cli, arguments, env=environment).exit_code == 0


def test_status_starts_without_the_heavy_libraries(path: Path) -> None:
    program = """
import sys
import tomllib
from cleanroomd.cli.verbs import cli
try:
    cli(["status"])
except SystemExit:
    heavy = set(sys.modules) & {
        "asyncio", "asyncvarlink", "cleanroomd.engine", "logging", "pathlib", "pydantic", "pynetdicom", "pyroute2",
        "pyudev", "qemu", "rich", "shutil", "ssl", "subprocess", "urllib.parse",
    }
    sys.exit(f"imported {heavy}" if heavy else 0)
"""
    environment = os.environ | {"CLEANROOM_CONTROL": str(path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Caisson 1")


def start(arguments: Sequence[str], **options: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "80"}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        arguments, env=environment, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("verb", [["status", "--watch", "--json"], ["log", "--follow", "--json"]])
def test_streams_end_quietly_with_control_c(path: Path, verb: list[str]) -> None:
    with start(command(path, *verb), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert isinstance(json.loads(process.stdout.readline()), dict)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == ""


def test_a_reader_that_leaves_is_no_error(enclosure: FakeEnclosure, path: Path) -> None:
    enclosure.entries = ENTRIES * 5000
    with start(command(path, "log"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == ""


def test_a_watch_without_a_terminal_prints_every_status(path: Path) -> None:
    with start(command(path, "status", "--watch"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Caisson 1")
        process.terminate()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_live_status_leaves_the_terminal_as_it_was(path: Path, ending: signal.Signals) -> None:
    ours, theirs = pty.openpty()
    try:
        with start(command(path, "status", "--watch"), stdout=theirs) as process:
            os.close(theirs)
            assert process.stderr is not None
            seen = b""
            while b"Next: nothing to do" not in seen:
                seen += os.read(ours, 4096)
            assert b"\x1b[?25l" in seen
            process.send_signal(ending)
            while b"\x1b[?25h" not in seen:
                seen += os.read(ours, 4096)
            assert process.wait() == 130
            assert process.stderr.read() == ""
    finally:
        os.close(ours)


def test_what_was_denied_is_printed_as_lines_of_a_plan(enclosure: FakeEnclosure, path: Path) -> None:
    printed = run(path, "isolation", "learn")
    assert printed.exit_code == 0
    (flow,) = tomllib.loads(printed.stdout)["flow"]
    assert flow == {"from": "workstations", "to": "imaging", "tcp": [4242]}
    assert "# 12 packets denied: tcp 4242 (12)\n[[flow]]\n" in printed.stdout
    assert "#   3 packets: imaging asked 192.0.2.1" in printed.stdout
    assert json.loads(run(path, "isolation", "learn", "--json").stdout)["flows"][0]["to"] == "imaging"
    enclosure.refusal = CleanroomError("cannot learn flows: the plan and the vault are signed", "while staging")
    refused = run(path, "isolation", "learn")
    assert refused.exit_code == 1
    assert refused.stderr == "cannot learn flows: the plan and the vault are signed\n  while staging\n"
