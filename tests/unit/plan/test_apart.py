"""Reading a plan in a process of its own: the same plan, the same words, and no library left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from cleanroomd.errors import CleanroomError
from cleanroomd.plan.apart import load_apart
from cleanroomd.plan.load import load
from cleanroomd.plan.problems import PlanError

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "docs/examples/plan.toml"


@pytest.mark.parametrize("plan", [EXAMPLE, REPOSITORY / "scripts/rigs/tiny_plan.toml"])
def test_the_same_plan(plan: Path) -> None:
    assert load_apart(plan) == load(plan)


def test_the_same_problems(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(EXAMPLE.read_text().replace("priority = 1", "priority = 9") + "\n[unknown]\n")
    with pytest.raises(PlanError) as here:
        load(plan)
    with pytest.raises(PlanError) as there:
        load_apart(plan)
    assert there.value.problems == here.value.problems
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


@pytest.mark.parametrize("name", ["nowhere", "imagerie\udce9", "-h"])
def test_the_same_words_for_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(CleanroomError) as here:
        load(tmp_path / name)
    with pytest.raises(CleanroomError) as there:
        load_apart(tmp_path / name)
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (("/nowhere",), "No such file or directory"),
        (("sh", "-c", "exit 3"), "ended with exit status 3"),
        (("sh", "-c", "kill -KILL $$"), "was killed by SIGKILL"),
    ],
)
def test_a_process_that_fails_is_told(command: tuple[str, ...], cause: str) -> None:
    with pytest.raises(CleanroomError, match=f"^cannot read the plan .*: .*{cause}"):
        load_apart(EXAMPLE, command=command)


def test_a_path_that_cannot_be_is_told() -> None:
    with pytest.raises(CleanroomError, match="cannot read the plan"):
        load_apart(Path("a\0b"))


def test_the_daemon_stays_without_the_libraries_of_its_children() -> None:
    program = f"""
import sys
from pathlib import Path
import cleanroomd.daemon
from cleanroomd.plan.apart import load_apart
load_apart(Path({str(EXAMPLE)!r}))
heavy = set(sys.modules) & {{
    "cryptography", "dns", "hl7", "pyasn1", "pydantic", "pydicom", "pynetdicom", "rich", "tomllib", "tree_sitter",
}}
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
