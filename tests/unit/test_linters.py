"""The checks of style and structure, as tests: they run wherever the tests run, with the same versions."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def run(*command: str) -> None:
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{' '.join(command)}\n{found.stdout}{found.stderr}"


def test_ruff_finds_nothing() -> None:
    run(str(TOOLS / "ruff"), "check", "--no-cache", ".")


def test_the_code_is_formatted() -> None:
    run(str(TOOLS / "ruff"), "format", "--no-cache", "--check", ".")


@pytest.mark.timeout(300)
def test_types_are_strict() -> None:
    run(str(TOOLS / "mypy"))


@pytest.mark.timeout(60)
def test_the_rooms_look_one_way() -> None:
    run(str(TOOLS / "lint-imports"), "--no-cache")


@pytest.mark.timeout(60)
def test_words_are_spelt_right() -> None:
    run(str(TOOLS / "codespell"), "cleanroomd", "scripts", "tests", "docs", "README.md", "CHANGELOG.md")


def test_shell_scripts_are_sound() -> None:
    scripts = [
        path
        for path in (*(ROOT / "scripts").rglob("*"), ROOT / ".ci" / "run")
        if path.is_file() and (path.suffix == ".sh" or _is_shell(path))
    ]
    run("shellcheck", "-x", *map(str, scripts))


def _is_shell(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.readline(100).startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash"))
