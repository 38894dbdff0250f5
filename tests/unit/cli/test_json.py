"""What --json prints is what the reference says, for every command that has it."""

import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter, ValidationError

from cleanroomd.cli.documents import Failure, PlanCheck
from cleanroomd.cli.output import JsonOption
from cleanroomd.cli.probes import protocol_name
from cleanroomd.cli.verbs import cli
from cleanroomd.errors import CleanroomError
from cleanroomd.model.plan import Probe
from cleanroomd.model.status import ServiceState
from tests.unit.control.fake import STATUS, FakeEnclosure, served, with_service

PLAN = Path(__file__).parents[3] / "docs" / "examples" / "plan.toml"
PROTOCOLS = {protocol_name(kind): kind for kind in get_args(Probe)}


def documents(group: click.Group, context: click.Context) -> Iterator[tuple[tuple[str, ...], type[Any]]]:
    """The words of each command, and what it says that it prints."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield from (((name,), option.document) for option in command.params if isinstance(option, JsonOption))
        if isinstance(command, click.Group):
            yield from (((name, *words), kind) for words, kind in documents(command, context))


assert isinstance(cli, click.Group)
DOCUMENTS = dict(documents(cli, click.Context(cli)))
ARGUMENTS = {
    ("start",): ["record"],
    ("stop",): ["record"],
    ("uplink", "open"): ["results", "--for", "10m", "--reason", "results of the night"],
    ("plan", "check"): [str(PLAN)],
    ("plan", "show"): [str(PLAN)],
    ("plan", "simulate"): [str(PLAN)],
}


@pytest.fixture
def enclosure() -> FakeEnclosure:
    return FakeEnclosure(
        entries=[{"time": 1.0, "event": "step", "service": "record", "text": "run record", "attempt": 1}],
    )


@pytest.fixture
def socket(enclosure: FakeEnclosure, tmp_path: Path) -> Iterator[Path]:
    with served(enclosure, tmp_path / "control"):
        yield tmp_path / "control"


def printed(socket: Path, *arguments: str) -> list[Any]:
    result = CliRunner().invoke(cli, ["--socket", str(socket), *arguments, "--json"], catch_exceptions=False)
    assert result.stdout.isascii()
    return [json.loads(line) for line in result.stdout.splitlines()]


def conform(document: Any, kind: type[Any]) -> None:
    """Nothing unknown, nothing missing, every value of its type."""
    plain = with_probes_checked(document)
    adapter = TypeAdapter(kind)
    value = adapter.validate_json(json.dumps(plain), strict=True, extra="forbid")
    assert adapter.dump_python(value, mode="json") == plain


def with_probes_checked(value: Any) -> Any:
    """Each probe has conformed to what its protocol says that it is, and made place for one that any may stand for."""
    match value:
        case {"protocol": str(protocol), **rest}:
            conform(rest, PROTOCOLS[protocol])
            return {"need": 1, "of": []}
        case dict():
            return {key: with_probes_checked(item) for key, item in value.items()}
        case list():
            return [with_probes_checked(item) for item in value]
        case _:
            return value


def test_every_document_has_a_name_and_a_meaning() -> None:
    assert {("status",), ("log",), ("restore",), ("plan", "check")} <= DOCUMENTS.keys()
    assert all(is_dataclass(kind) and kind.__doc__ for kind in DOCUMENTS.values())


@pytest.mark.parametrize("command", DOCUMENTS, ids=" ".join)
def test_what_is_printed_is_what_the_command_declares(
    enclosure: FakeEnclosure, socket: Path, command: tuple[str, ...]
) -> None:
    asking = command[0] in {"start", "stop", "restore", "shutdown"} or command[0:2] in {
        ("uplink", "open"),
        ("uplink", "close"),
    }
    found = printed(socket, *command, *ARGUMENTS.get(command, []), *(["--no-wait"] if asking else []))
    assert found
    for document in found:
        conform(document, DOCUMENTS[command])


def test_an_outcome_is_an_answer_too(enclosure: FakeEnclosure, socket: Path) -> None:
    enclosure.answers = [with_service(STATUS, "record", ServiceState.READY, proof="HTTP 200")]
    (answer,) = printed(socket, "start", "record")
    conform(answer, DOCUMENTS[("start",)])
    assert answer["outcome"]


def test_every_kind_of_probe_is_told_by_its_protocol(tmp_path: Path) -> None:
    (plan,) = printed(tmp_path, "plan", "show", str(PLAN))
    protocols = {probe["protocol"] for service in plan["services"] for probe in service["ready"]}
    assert len(protocols) > 2
    assert protocols <= PROTOCOLS.keys()


@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_plan_with_problems_is_a_check(tmp_path: Path, verb: str) -> None:
    (tmp_path / "plan.toml").write_text('[enclosure]\nname = 3\n[[service]]\nname = "a"\n')
    (check,) = printed(tmp_path, "plan", verb, str(tmp_path / "plan.toml"))
    conform(check, PlanCheck)
    assert check["problems"]
    assert check["services"] is None


@pytest.mark.parametrize("arguments", [["status"], ["start", "record"], ["log"], ["plan", "check", "nowhere.toml"]])
def test_what_cannot_be_done_is_a_failure(tmp_path: Path, arguments: list[str]) -> None:
    (failure,) = printed(tmp_path / "nowhere", *arguments)
    conform(failure, Failure)
    assert failure["error"].startswith("cannot ")


def test_a_refusal_is_a_failure(enclosure: FakeEnclosure, socket: Path) -> None:
    enclosure.refusal = CleanroomError("cannot stop record: it is being saved")
    (failure,) = printed(socket, "stop", "record")
    conform(failure, Failure)
    assert failure["hint"] == ""


@pytest.mark.parametrize(
    "document",
    [{"request": "a"}, {"request": "a", "outcome": None, "more": 1}, {"request": 1, "outcome": None}],
)
def test_the_test_sees_what_is_missing_unknown_or_of_another_type(document: Any) -> None:
    with pytest.raises((ValidationError, AssertionError)):
        conform(document, DOCUMENTS[("stop",)])
