from pathlib import Path

import pytest

from rigs import namespaces
from rigs.demo import parse
from rigs.pid1 import Boot, Unit
from rigs.place import LONGEST_SOCKET, Place


def test_all_after_workstation_is_the_command() -> None:
    options = parse(["--cache", "/c", "--workstation", "--", "curl", "--json", "http://10.1.20.13/"])
    assert options.workstation == ["curl", "--json", "http://10.1.20.13/"]
    assert options.json is False
    assert options.cache == Path("/c")


def test_without_workstation_there_is_no_command() -> None:
    assert parse(["--tiny"]).workstation is None


def test_boot_crosses_the_command_line_unchanged() -> None:
    boot = Boot(
        hostname="rig",
        lifeline=3,
        mounts=(("-t", "proc", "proc", "/proc"),),
        files={"/run/a": "b"},
        units=(Unit(name="daemon", argv=("sleep", "1"), notify=True, environment={"A": "1"}),),
        held=(7,),
    )
    assert Boot.from_json(boot.to_json()) == boot


@pytest.mark.parametrize("privileged", [True, False])
def test_a_sandbox_has_a_user_namespace_only_where_it_is_needed(privileged: bool) -> None:
    assert ("--user" in namespaces.sandbox_argv(privileged=privileged)) is not privileged


def test_the_root_of_a_run_has_links_to_the_disks_and_the_plan(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"disk")
    plan = tmp_path / "plan"
    plan.write_text("plan", encoding="utf-8")
    place = Place(tmp_path / "c")
    with place.locked():
        root = place.prepare(plan=plan, disks={"record-system": image})
        assert (root / "vault/record-system.qcow2").read_bytes() == b"disk"
        assert (root / "plan.toml").read_text(encoding="utf-8") == "plan"
        place.clear()
    assert not root.exists()
    assert image.exists()


def test_a_long_cache_gets_a_short_way_to_its_sockets(tmp_path: Path) -> None:
    place = Place(tmp_path / ("x" * 90))
    plan = tmp_path / "plan"
    plan.touch()
    with place.locked():
        root = place.prepare(plan=plan, disks={})
        assert namespaces.socket_path_fits(root / LONGEST_SOCKET)
        assert (root / "plan.toml").exists()
        place.clear()
    assert not root.is_symlink()
    assert not root.parent.exists()


def test_a_second_demonstration_is_told_of_the_first(tmp_path: Path) -> None:
    from cleanroomd.errors import CleanroomError

    with Place(tmp_path).locked(), pytest.raises(CleanroomError, match="runs already"), Place(tmp_path).locked():
        raise AssertionError
