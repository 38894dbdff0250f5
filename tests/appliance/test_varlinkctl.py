"""systemd's own varlink client on the control socket: what it reads there, and who may call what."""

import json
import subprocess
from typing import Any

import pytest

from cleanroomd import __version__
from rigs.nspawn.base import STAGER, STRANGER, VIEWER
from rigs.nspawn.container import Container
from tests.appliance.enclosure import CONTROL, INTERFACE

pytestmark = pytest.mark.timeout(400)

METHODS = ("GetStatus", "WatchStatus", "Start", "Stop", "Restore", "Shutdown", "ReadJournal")
ERRORS = ("NoSuchService", "NotAllowed", "Cannot", "NoCall", "Fault")
IMAGING = {"service": "imaging"}


def varlinkctl(container: Container, *arguments: str, user: str = "root") -> "subprocess.CompletedProcess[str]":
    return container.run("varlinkctl", *arguments, user=user)


def call(
    container: Container, method: str, parameters: dict[str, Any] | None = None, *options: str, user: str = "root"
) -> "subprocess.CompletedProcess[str]":
    named = method if "." in method else f"{INTERFACE}.{method}"
    text = json.dumps(parameters or {})
    return varlinkctl(container, "call", "--json=short", *options, CONTROL, named, text, user=user)


def replies(text: str) -> list[dict[str, Any]]:
    """One JSON object a reply, with or without the record separators of RFC 7464."""
    return [json.loads(line.strip("\x1e")) for line in text.splitlines() if line.strip("\x1e")]


def test_info_and_interfaces(shared: Container) -> None:
    info = json.loads(varlinkctl(shared, "info", "--json=short", CONTROL).stdout)
    assert (info["product"], info["version"]) == ("cleanroomd", __version__)
    assert set(info["interfaces"]) == {INTERFACE, "org.varlink.service"}
    listed = varlinkctl(shared, "list-interfaces", CONTROL)
    assert listed.stdout.split() == [INTERFACE, "org.varlink.service"], listed.stderr


def test_introspect_shows_every_method_and_error_with_its_words_and_is_a_valid_description(shared: Container) -> None:
    introspected = varlinkctl(shared, "introspect", CONTROL, INTERFACE)
    assert introspected.returncode == 0, introspected.stderr
    lines = introspected.stdout.splitlines()
    for kind, names in (("method", METHODS), ("error", ERRORS)):
        for name in names:
            (place,) = (number for number, line in enumerate(lines) if line.startswith(f"{kind} {name}"))
            assert lines[place - 1].startswith("# "), f"{kind} {name} has no words"
    validated = shared.run("varlinkctl", "validate-idl", text=introspected.stdout)
    assert validated.returncode == 0, validated.stderr


def test_get_status(shared: Container) -> None:
    done = call(shared, "GetStatus")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)["status"]
    assert status["enclosure"] == "Caisson d'essai"
    assert status["unsealed"]
    assert [service["name"] for service in status["services"]] == ["record", "imaging"]


def test_the_journal_is_a_stream_with_an_end(shared: Container) -> None:
    done = call(shared, "ReadJournal", {"follow": False}, "--more")
    assert done.returncode == 0, done.stderr
    *entries, last = replies(done.stdout)
    assert "cleanroomd" in entries[0]["entry"]["text"]
    assert last == {"entry": None}


def test_the_status_is_a_stream_that_goes_on_at_every_change(shared: Container) -> None:
    call(shared, "Start", IMAGING)
    argv = ["varlinkctl", "call", "--json=short", "--more", "--timeout=infinity"]
    argv += [CONTROL, f"{INTERFACE}.WatchStatus", "{}"]
    with shared.started(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        (first,) = replies(watch.stdout.readline())
        assert _imaging(first) != "stopped"
        assert call(shared, "Stop", IMAGING).returncode == 0
        # Ends with the state, or with the test's deadline.
        for line in watch.stdout:
            if [_imaging(reply) for reply in replies(line)] == ["stopped"]:
                break
        else:
            pytest.fail("the stream ended")


def _imaging(reply: dict[str, Any]) -> str:
    (state,) = (service["state"] for service in reply["status"]["services"] if service["name"] == "imaging")
    return str(state)


@pytest.mark.parametrize(
    ("method", "parameters", "error", "detail"),
    [
        ("Explode", {}, "org.varlink.service.MethodNotFound", {"method": "Explode"}),
        ("org.example.Nothing", {}, "org.varlink.service.InterfaceNotFound", {"interface": "org.example"}),
        ("Start", {}, "org.varlink.service.InvalidParameter", {"parameter": "service"}),
        ("Start", {"service": 3}, "org.varlink.service.InvalidParameter", {"parameter": "service"}),
        ("Start", {"service": None}, "org.varlink.service.InvalidParameter", {"parameter": "service"}),
        ("Start", {"service": "imaging", "now": True}, "org.varlink.service.InvalidParameter", {"parameter": "now"}),
        ("WatchStatus", {}, "org.varlink.service.ExpectedMore", {}),
        (
            "Start",
            {"service": "imagi"},
            f"{INTERFACE}.NoSuchService",
            {"name": "imagi", "hint": "did you mean imaging?"},
        ),
    ],
)
def test_a_wrong_call_gets_an_error_that_names_what_is_wrong(
    shared: Container, method: str, parameters: dict[str, Any], error: str, detail: dict[str, Any]
) -> None:
    done = call(shared, method, parameters)
    assert done.returncode != 0
    assert done.stderr.strip().endswith(f"failed: {error}")
    assert json.loads(done.stdout or "{}") == detail


CALLS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "GetStatus": ({}, ()),
    "WatchStatus": ({}, ()),
    "ReadJournal": ({"follow": False}, ("--more",)),
    "Start": (IMAGING, ()),
    "Stop": (IMAGING, ()),
    "Restore": ({}, ()),
    "Shutdown": ({}, ()),
}
READING = frozenset({"GetStatus", "ReadJournal"})
ACTING = frozenset({"Start", "Stop", "Restore", "Shutdown"})


@pytest.mark.parametrize(
    ("user", "allowed"),
    [("root", READING | ACTING), (STAGER, READING | ACTING), (VIEWER, READING), (STRANGER, frozenset())],
)
def test_users_and_their_groups_decide(shared: Container, user: str, allowed: frozenset[str]) -> None:
    for method in sorted(READING | ACTING):
        parameters, options = CALLS[method]
        done = call(shared, method, parameters, *options, user=user)
        if method in allowed:
            assert done.returncode == 0, f"{user} may {method}: {done.stderr}"
        else:
            assert done.returncode != 0, f"{user} may not {method}"
            assert done.stderr.strip().endswith(f"failed: {INTERFACE}.NotAllowed")
            assert "root and the members of" in replies(done.stdout)[0]["needs"]


def test_a_stream_is_refused_like_a_call(shared: Container) -> None:
    done = call(shared, "WatchStatus", {}, "--more", user=STRANGER)
    assert done.stderr.strip().endswith(f"failed: {INTERFACE}.NotAllowed")
