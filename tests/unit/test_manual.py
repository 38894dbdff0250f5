"""The manual pages, message catalogs and completions, as the programs that read them see them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cleanroomd.cli.verbs import cli
from cleanroomd.engine.journal import ADVICE, MESSAGE_IDS, Event
from rigs.reference import ROOT, catalog, manual
from rigs.reference.commands import top, verbs
from rigs.reference.roff import convert, escape
from tests.unit.control.fake import FakeEnclosure, served

PAGES = manual.files()


def test_every_verb_and_program_has_a_page() -> None:
    names = {verb.command_path.replace(" ", "-") + ".1" for verb in verbs(top(cli, "cleanroomctl"))}
    assert len(names) > 8
    assert names | {"cleanroomctl.1", "cleanroomd.8", "cleanroom-keeper.8", "cleanroom-plan.5"} == PAGES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_wrong(page: str) -> None:
    found = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning"], input=PAGES[page], capture_output=True, text=True, check=False
    )
    # A page without a date is one that only changes with the code.
    complaints = [line for line in found.stdout.splitlines() if "missing date" not in line]
    assert complaints == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_that_another_names_is_there(page: str) -> None:
    related = re.findall(r"^\.BR (\S+) \((\d)\)", PAGES[page], re.MULTILINE)
    assert related
    assert {f"{name}.{section}".replace("\\", "") for name, section in related} <= PAGES.keys()


def test_a_page_tells_options_exit_codes_and_json() -> None:
    shown = rendered("cleanroomctl-log.1")
    for words in (
        "cleanroomctl log [--follow] [--lines N]",
        "-n, --lines N",
        "EXIT STATUS",
        "Journal entry",
        "event (text)",
    ):
        assert words in shown


def test_keys_of_the_plan_are_as_the_file_writes_them() -> None:
    assert "[ports.NAME]" in rendered("cleanroom-plan.5")


def rendered(page: str) -> str:
    shown = subprocess.run(
        ["mandoc", "-Tutf8", "-Owidth=200"], input=PAGES[page], capture_output=True, text=True, check=True
    )
    return re.sub(".\b", "", shown.stdout)


def test_nothing_in_a_text_is_taken_for_a_request() -> None:
    assert escape(".TH \\fB -x 'a'") == "\\&.TH \\efB \\-x \\(aqa\\(aq"
    assert convert("first\n\n.second `--x`") == ".PP\nfirst\n.PP\n\\&.second \\fB\\-\\-x\\fR\n"


def test_every_event_has_its_words_in_both_languages() -> None:
    assert set(ADVICE) == set(Event)
    for text in catalog.files().values():
        assert set(re.findall("^-- ([0-9a-f]{32})$", text, re.MULTILINE)) == set(MESSAGE_IDS.values())


def test_a_field_that_is_quoted_is_one_that_every_such_entry_has() -> None:
    """An empty or missing one would show by its name."""
    has = {Event.SERVICE: {"CLEANROOM_SERVICE"}, Event.ADOPTED: {"CLEANROOM_SERVICE"}, Event.RUN: {"CLEANROOM_STATE"}}
    for text in catalog.files().values():
        for entry in text.split("\n-- ")[1:]:
            event = next(event for event, number in MESSAGE_IDS.items() if entry.startswith(number))
            assert set(re.findall("@([A-Z_]+)@", entry)) <= has.get(event, set())


def test_systemd_takes_the_catalogs_together(tmp_path: Path) -> None:
    install(tmp_path, catalog.files())
    listed = journalctl(tmp_path, "--list-catalog")
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(MESSAGE_IDS.values())


@pytest.mark.parametrize(
    ("file", "subject", "advice"),
    [
        ("cleanroomd.catalog", "A step could not be done", "What to do: "),
        ("cleanroomd.fr.catalog", "Une étape a échoué", "À faire : "),
    ],
)
def test_systemd_shows_each_language(tmp_path: Path, file: str, subject: str, advice: str) -> None:
    """Each as the only one, since a language shows only where its locale is installed."""
    install(tmp_path, {"cleanroomd.catalog": catalog.files()[file]})
    shown = journalctl(tmp_path, "--dump-catalog", MESSAGE_IDS[Event.STEP_FAILED])
    assert f"\nSubject: {subject}\nDefined-By: cleanroomd\n" in shown
    assert f"\n{advice}" in shown


def install(root: Path, files: Mapping[str, str]) -> None:
    folder = root / "usr" / "lib" / "systemd" / "catalog"
    folder.mkdir(parents=True)
    (root / "var" / "lib" / "systemd" / "catalog").mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    journalctl(root, "--update-catalog")


def journalctl(root: Path, *arguments: str) -> str:
    done = subprocess.run(["journalctl", f"--root={root}", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder for PATH in which `cleanroomctl` is this one."""
    command = tmp_path / "bin" / "cleanroomctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cleanroomd.cli.main "$@"\n')
    command.chmod(0o755)
    return command.parent


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("cleanroomctl", "sta"), ["status", "start"]),
        (("cleanroomctl", "plan", "sh"), ["show"]),
        (("cleanroomctl", "log", "--fo"), ["--follow"]),
        (("cleanroomctl", "start", ""), ["imaging", "record"]),
        (("cleanroomctl", "log", "--service", "im"), ["imaging"]),
    ],
    ids=" ".join,
)
def test_bash_completes(program: Path, tmp_path: Path, typed: tuple[str, ...], offered: list[str]) -> None:
    with served(FakeEnclosure(), tmp_path / "control"):
        assert completed(program, tmp_path / "control", typed) == offered


def test_no_daemon_completes_no_service_and_says_nothing(program: Path, tmp_path: Path) -> None:
    assert completed(program, tmp_path / "nowhere", ("cleanroomctl", "start", "")) == []


def completed(program: Path, socket: Path, typed: tuple[str, ...]) -> list[str]:
    # As an interactive bash calls the function that the script registers.
    script = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_cleanroomctl_completion cleanroomctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {
        "PATH": f"{program}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CLEANROOM_CONTROL": str(socket),
    }
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(ROOT / "completions" / "cleanroomctl.bash"), *typed],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()
