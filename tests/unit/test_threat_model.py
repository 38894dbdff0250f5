"""Every test that the threat model names exists, and every attack of the suite with it."""

import ast
import re
from pathlib import Path

import pytest

from tests.kernel.attacks import ATTACKS

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([^`]+)\])?`", (ROOT / "docs/threat-model.md").read_text())


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_it_names_tests() -> None:
    assert len(NAMED) > 40
    assert any(attack for _, _, attack in NAMED)


@pytest.mark.parametrize(("path", "function"), sorted({(path, function) for path, function, _ in NAMED}))
def test_every_test_that_is_named_exists(path: str, function: str) -> None:
    assert function in functions(ROOT / path)


@pytest.mark.parametrize("attack", sorted({attack for _, _, attack in NAMED if attack}))
def test_every_attack_that_is_named_is_tried(attack: str) -> None:
    assert attack in {each.name for each in ATTACKS}
