from pathlib import Path

import pytest

from cleanroomd.machine import accelerator
from cleanroomd.machine.accelerator import AcceleratorKind, Ending, Host, probe, qemu_version

QEMU = Path("/usr/bin/qemu-system-x86_64")
DEADLINE = 60.0

pytestmark = pytest.mark.timeout(180)


async def test_the_control_passes() -> None:
    run = await accelerator._run_guest(QEMU, AcceleratorKind.TCG, deadline=DEADLINE)
    assert run.ending is Ending.ANSWERED, run


async def test_a_guest_that_does_not_reach_long_mode_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    set_lme, set_nothing = b"\x0d\x00\x01\x00\x00\x0f\x30", b"\x0d\x00\x00\x00\x00\x0f\x30"
    assert set_lme in accelerator.GUEST
    monkeypatch.setattr(accelerator, "GUEST", accelerator.GUEST.replace(set_lme, set_nothing))
    run = await accelerator._run_guest(QEMU, AcceleratorKind.TCG, deadline=DEADLINE)
    assert (run.ending, run.detail) == (Ending.FAILED, "the guest crashed")


async def test_this_host_and_again_from_the_cache_without_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the CPU has no extension the answer is emulation, whatever /dev/kvm pretends."""
    cache = tmp_path / "accelerator.json"
    chosen = await probe(QEMU, cache=cache)
    if not accelerator._has_cpu_flag(Path("/proc/cpuinfo")):
        assert chosen.kind is AcceleratorKind.TCG
        assert "no vmx or svm flag" in chosen.reason
    assert chosen.qemu_version == await qemu_version(QEMU)
    # Every child is started through a tool on PATH: without one, a child would be an error.
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert await probe(QEMU, cache=cache) == chosen


async def test_the_chosen_accelerator_runs_guests_even_if_the_cpu_flag_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flag pretended, the runs themselves must see through a /dev/kvm that only opens."""
    cpuinfo, cache = tmp_path / "cpuinfo", tmp_path / "accelerator.json"
    cpuinfo.write_text("flags\t\t: fpu vmx svm\n")
    chosen = await probe(QEMU, cache=cache, host=Host(cpuinfo=cpuinfo))
    if not accelerator._has_cpu_flag(Path("/proc/cpuinfo")):
        assert chosen.kind is AcceleratorKind.TCG
    run = await accelerator._run_guest(QEMU, chosen.kind, deadline=DEADLINE)
    assert run.ending is Ending.ANSWERED, chosen
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert await probe(QEMU, cache=cache, host=Host(cpuinfo=cpuinfo)) == chosen
