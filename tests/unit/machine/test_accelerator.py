import asyncio
import json
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.errors import MachineError
from cleanroomd.machine import accelerator
from cleanroomd.machine.accelerator import (
    Accelerator,
    AcceleratorKind,
    Ending,
    Facts,
    Host,
    Measured,
    Run,
    decide,
    probe,
    qemu_version,
)
from tests.unit.machine.descriptors import few_descriptors

ANSWER = "exit 85"
SOURCE = Path(accelerator.__file__).with_name("longmode.S")

runs = st.none() | st.builds(Run, st.sampled_from(Ending), st.floats(0, 600), st.text(min_size=1, max_size=20))
facts = st.builds(
    Facts,
    cpu_flag=st.booleans(),
    kvm_problem=st.sampled_from(("", "Permission denied")),
    measured=st.builds(Measured, qemu_version=st.text(max_size=10), control=runs, kvm=runs),
)


@given(facts)
def test_kvm_is_chosen_exactly_when_nothing_speaks_against_it(facts: Facts) -> None:
    measured = facts.measured
    answered = [run is not None and run.ending is Ending.ANSWERED for run in (measured.control, measured.kvm)]
    sound = facts.cpu_flag and facts.kvm_problem == "" and all(answered)
    chosen = decide(facts)
    assert (chosen.kind is AcceleratorKind.KVM) == sound
    assert chosen.reason
    assert chosen.qemu_version == measured.qemu_version


OK = Run(Ending.ANSWERED, 0.3)
SILENT = Run(Ending.SILENT, 5.0)
FAILED = Run(Ending.FAILED, 0.1, "qemu: no such machine")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(False, "No such file or directory", Measured("9", FAILED, FAILED)), "no vmx or svm flag"),
        (Facts(True, "Permission denied", Measured("9", FAILED, FAILED)), "/dev/kvm: Permission denied"),
        (Facts(True, "", Measured("9", FAILED)), "the probe itself is broken"),
        (Facts(True, "", Measured("9", FAILED)), "failed: qemu: no such machine"),
        (Facts(True, "", Measured("9", Run(Ending.SILENT, 60.0))), "no answer within 1 min 00 s"),
        (Facts(True, "", Measured("9", OK, SILENT)), "no answer within 5 s (under emulation it answered in 0.3"),
        (Facts(True, "", Measured("9", OK, FAILED)), "does not serve: a 64-bit guest failed: qemu: no such"),
        (Facts(True, "", Measured("9", OK)), "has not been tried"),
        (Facts(True, "", Measured("9", OK, Run(Ending.ANSWERED, 0.25))), "ran under KVM in 0.2 s"),
    ],
)
def test_the_reason_names_the_first_obstacle(facts: Facts, words: str) -> None:
    assert words in decide(facts).reason


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu vmx lm\n", True),
        ("processor\t: 0\nflags\t\t: fpu svm lm\nbugs\t\t: x\n", True),
        ("processor\t: 0\nmodel name\t: vmx svm\nflags\t\t: fpu svm_lock lm\n", False),
        ("processor\t: 0\nflags\t\t: fpu lm\nvmx flags\t: vnmi svm\n", False),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_cpu_flag(tmp_path: Path, cpuinfo: str, found: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert accelerator._has_cpu_flag(path) is found


def test_the_guest_is_a_multiboot_image_of_its_own_length() -> None:
    magic, flags, checksum, header, load, end, bss_end, entry = struct.unpack_from("<8I", accelerator.GUEST)
    assert magic == 0x1BADB002
    assert (magic + flags + checksum) % (1 << 32) == 0
    assert header == load
    assert end == bss_end == load + len(accelerator.GUEST)
    assert load < entry < end


def test_the_guest_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    for command in (
        ("as", "--64", "-o", "longmode.o", SOURCE),
        ("ld", "-m", "elf_x86_64", "-e", "start", "-Ttext=0x100000", "-o", "longmode.elf", "longmode.o"),
        ("objcopy", "-O", "binary", "-j", ".text", "longmode.elf", "longmode.bin"),
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "longmode.bin").read_bytes() == accelerator.GUEST


@dataclass(frozen=True, slots=True)
class Bench:
    """A QEMU on PATH that logs its arguments, and the host that it believes it is on."""

    folder: Path
    host: Host

    @property
    def cache(self) -> Path:
        return self.folder / "state" / "accelerator.json"

    @property
    def calls(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def install(
        self, *, tcg: str = ANSWER, kvm: str = ANSWER, version: str = "echo 'QEMU emulator version 9.9.9 (Fake)'"
    ) -> None:
        qemu = self.folder / "bin" / "qemu-fake"
        qemu.write_text(
            "#!/bin/sh\n"
            f'printf "%s\\n" "$*" >>{self.folder}/log\n'
            'for word in "$@"; do\n'
            f'  [ "$last" != -kernel ] || cat "$word" >{self.folder}/guest\n'
            "  last=$word\n"
            "done\n"
            'case "$*" in\n'
            f"  --version) {version} ;;\n"
            f'  *"-accel tcg "*) {tcg} ;;\n'
            f'  *"-accel kvm "*) {kvm} ;;\n'
            "esac\n"
        )
        qemu.chmod(0o755)

    async def probe(self) -> Accelerator:
        return await probe(Path("qemu-fake"), cache=self.cache, host=self.host)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "bin").mkdir()
    for name, text in (("cpuinfo", "flags\t: fpu svm\n"), ("kvm", ""), ("boot_id", "first\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    bench = Bench(tmp_path, Host(tmp_path / "cpuinfo", tmp_path / "kvm", tmp_path / "boot_id"))
    bench.install()
    return bench


async def test_each_run_has_exactly_one_accelerator_and_the_guest(bench: Bench) -> None:
    chosen = await bench.probe()
    assert chosen.kind is AcceleratorKind.KVM
    assert chosen.qemu_version == "9.9.9 (Fake)"
    version, control, kvm = bench.calls
    assert version == "--version"
    assert [call.split().count("-accel") for call in (control, kvm)] == [1, 1]
    assert "-accel tcg" in control
    assert "-accel kvm" in kvm
    assert (bench.folder / "guest").read_bytes() == accelerator.GUEST


def children() -> set[str]:
    """Children of this process, also those that are dead but not reaped."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


async def test_nothing_is_left_but_the_cache(bench: Bench) -> None:
    before = children()
    await bench.probe()
    assert [path.name for path in bench.cache.parent.iterdir()] == [bench.cache.name]
    assert children() == before


@pytest.mark.parametrize(
    ("kvm", "words"),
    [
        ("exit 0", "the guest crashed"),
        ("exit 1", "exit status 1"),
        ("exit 84", "exit status 84"),
        ("kill -ABRT $$", "killed by signal 6"),
        ("echo 'qemu: warning: no such feature'; echo 'qemu: no MSR' >&2; exit 1", "failed: qemu: no MSR"),
        ("printf 'a\\033[2Jb\\n'; exit 1", "failed: a [2Jb"),
    ],
)
async def test_kvm_that_fails_at_once(bench: Bench, kvm: str, words: str) -> None:
    bench.install(kvm=kvm)
    chosen = await bench.probe()
    assert chosen.kind is AcceleratorKind.TCG
    assert words in chosen.reason


async def test_a_broken_control_ends_the_probe(bench: Bench) -> None:
    bench.install(tcg="exit 1")
    chosen = await bench.probe()
    assert chosen.kind is AcceleratorKind.TCG
    assert "the probe itself is broken" in chosen.reason
    assert not any("-accel kvm" in call for call in bench.calls)


async def test_no_guest_runs_where_the_answer_is_plain(bench: Bench) -> None:
    bench.host.cpuinfo.write_text("flags\t: fpu\n")
    assert (await bench.probe()).kind is AcceleratorKind.TCG
    bench.host.cpuinfo.write_text("flags\t: fpu vmx\n")
    bench.host.kvm.unlink()
    assert "No such file" in (await bench.probe()).reason
    assert bench.calls == ["--version"]


@contextmanager
def lifeline(folder: Path) -> Iterator[tuple[int, str]]:
    """A FIFO, and what a script does to hold its other end for as long as it lives, having said so."""
    path = folder / "lifeline"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd, f"exec 9>{path}; echo up >&9; exec sleep 1000"
    finally:
        os.close(fd)


def is_cut(fd: int) -> bool:
    """Whether every process at the other end is dead, or dies within some seconds."""
    os.read(fd, 100)
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(8000))


@pytest.mark.parametrize("silent", ["tcg", "kvm"])
async def test_a_silent_run_is_killed_at_its_deadline(bench: Bench, silent: str) -> None:
    host = bench.host
    if silent == "tcg":
        host = Host(host.cpuinfo, host.kvm, host.boot_id, control_deadline=2.0)
    else:
        host = Host(host.cpuinfo, host.kvm, host.boot_id, kvm_deadline=2.0)
    before = children()
    with lifeline(bench.folder) as (fd, hang):
        bench.install(**{silent: hang})
        chosen = await Bench(bench.folder, host).probe()
        assert is_cut(fd)
    assert chosen.kind is AcceleratorKind.TCG
    assert "gave no answer within 2 s" in chosen.reason
    assert children() == before


async def test_a_slow_control_earns_kvm_more_time(bench: Bench) -> None:
    bench.install(tcg=f"sleep 0.2; {ANSWER}", kvm="exec sleep 1000")
    host = bench.host
    await probe(
        Path("qemu-fake"),
        cache=bench.cache,
        host=Host(host.cpuinfo, host.kvm, host.boot_id, kvm_deadline=0.01),
    )
    document = json.loads(bench.cache.read_text())
    assert document["kvm"]["seconds"] == 4 * document["control"]["seconds"]


async def test_a_cancelled_probe_takes_its_run_with_it(bench: Bench) -> None:
    with lifeline(bench.folder) as (fd, hang):
        bench.install(tcg=hang)
        task = asyncio.create_task(bench.probe())
        up = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, up.set)
        await up.wait()
        asyncio.get_running_loop().remove_reader(fd)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_cut(fd)
    assert not bench.cache.exists()


def test_a_killed_daemon_takes_its_run_with_it(bench: Bench) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from cleanroomd.machine.accelerator import Host, probe\n"
        "cache, *host = map(pathlib.Path, sys.argv[1:])\n"
        "asyncio.run(probe(pathlib.Path('qemu-fake'), cache=cache, host=Host(*host)))\n"
    )
    host = bench.host
    with lifeline(bench.folder) as (fd, hang):
        bench.install(tcg=hang)
        with subprocess.Popen(
            (sys.executable, "-c", program, bench.cache, host.cpuinfo, host.kvm, host.boot_id),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as daemon:
            assert select.select([fd], [], [], 8)[0]
            daemon.send_signal(signal.SIGKILL)
        assert is_cut(fd)


async def test_the_second_call_runs_nothing(bench: Bench) -> None:
    first = await bench.probe()
    calls = bench.calls
    assert await bench.probe() == first
    assert bench.calls == calls


async def test_a_failure_is_remembered_with_its_reason(bench: Bench) -> None:
    bench.install(kvm="echo boom; exit 1")
    first = await bench.probe()
    calls = bench.calls
    assert await bench.probe() == first
    assert "boom" in first.reason
    assert bench.calls == calls


async def test_another_boot_or_binary_is_probed_again(bench: Bench) -> None:
    await bench.probe()
    bench.host.boot_id.write_text("second\n")
    await bench.probe()
    assert len(bench.calls) == 6
    os.utime(bench.folder / "bin" / "qemu-fake", (1, 1))
    await bench.probe()
    assert len(bench.calls) == 9


async def test_what_a_glance_tells_is_never_remembered(bench: Bench) -> None:
    assert (await bench.probe()).kind is AcceleratorKind.KVM
    bench.host.kvm.unlink()
    assert (await bench.probe()).kind is AcceleratorKind.TCG
    bench.host.kvm.touch()
    assert (await bench.probe()).kind is AcceleratorKind.KVM
    assert len(bench.calls) == 3


Spoil = Callable[[dict[str, dict[str, object]]], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("identity"),
        lambda document: document.pop("qemu_version"),
        lambda document: document.pop("kvm"),
        lambda document: document.update(qemu_version=9),
        lambda document: document.update(kvm=None),
        lambda document: document.update(control=None),
        lambda document: document.update(kvm="answered"),
        lambda document: document["kvm"].pop("ending"),
        lambda document: document["kvm"].update(ending="well"),
        lambda document: document["kvm"].update(ending=[]),
        lambda document: document["control"].update(seconds="0.3"),
        lambda document: document["control"].update(detail=None),
        lambda document: document["control"].update(ending="silent"),
    ],
)
async def test_a_spoilt_cache_is_probed_again(bench: Bench, spoil: Spoil) -> None:
    first = await bench.probe()
    document = json.loads(bench.cache.read_text())
    spoil(document)
    bench.cache.write_text(json.dumps(document))
    assert (await bench.probe()).kind is first.kind
    assert len(bench.calls) == 6


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
async def test_a_cache_of_garbage_is_replaced(bench: Bench, garbage: bytes) -> None:
    bench.cache.parent.mkdir()
    bench.cache.write_bytes(garbage)
    await bench.probe()
    await bench.probe()
    assert len(bench.calls) == 3


async def test_a_cache_that_cannot_be_written_costs_only_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.cache.parent.write_text("a file where the folder should be")
    assert (await bench.probe()).kind is AcceleratorKind.KVM
    assert "cannot remember the accelerator" in caplog.text


async def test_no_qemu(bench: Bench) -> None:
    (bench.folder / "bin" / "qemu-fake").unlink()
    with pytest.raises(MachineError, match="cannot find QEMU: qemu-fake") as caught:
        await bench.probe()
    assert "qemu-system-x86" in caught.value.hint


async def test_a_qemu_that_may_not_be_run(bench: Bench) -> None:
    path = bench.folder / "bin" / "qemu-fake"
    path.chmod(0o644)
    with pytest.raises(MachineError, match="missing or not executable"):
        await probe(path, cache=bench.cache, host=bench.host)


async def test_a_lack_of_descriptors_is_not_taken_for_a_missing_qemu(bench: Bench) -> None:
    bench.install(version="echo QEMU emulator version 7.2")
    with few_descriptors(1), pytest.raises(MachineError, match="Too many open files") as caught:
        await qemu_version(Path("qemu-fake"))
    assert "LimitNOFILE" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("echo gibberish", "gibberish"),
        ("echo QEMU emulator version 1; exit 3", "QEMU emulator version 1"),
        ("exit 127", "exit status 127"),
    ],
)
async def test_a_qemu_that_does_not_tell_its_version(bench: Bench, version: str, words: str) -> None:
    bench.install(version=version)
    with pytest.raises(MachineError, match="cannot tell the version of QEMU") as caught:
        await qemu_version(Path("qemu-fake"))
    assert words in caught.value.message


async def test_a_qemu_that_is_silent_about_its_version(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_VERSION_DEADLINE", 0.5)
    bench.install(version="exec sleep 1000")
    with pytest.raises(MachineError, match=r"cannot tell the version of QEMU .* no answer within"):
        await qemu_version(Path("qemu-fake"))


async def test_no_proc(bench: Bench) -> None:
    bench.host.boot_id.unlink()
    with pytest.raises(MachineError, match="cannot choose an accelerator"):
        await bench.probe()
