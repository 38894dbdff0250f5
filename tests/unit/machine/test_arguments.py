"""QEMU's command line, as far as safety depends on it."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cleanroomd.machine.arguments import DiskImage, Handles, qemu_arguments
from cleanroomd.model.plan import Disk, Service, TcpProbe

SERVICE = Service(
    name="imaging",
    title="Imagerie",
    priority=2,
    address=IPv4Address("10.1.20.13"),
    mac="52:54:00:01:20:13",
    memory=512 << 20,
    memory_min=256 << 20,
    disks=(Disk("imaging-system"),),
    ready=(TcpProbe(80, b"ok"),),
)


def arguments(*, golden_format: str = "qcow2", accelerator: str = "tcg", directory: str = "/r") -> list[str]:
    disk = DiskImage("imaging-system", Path("/v/a.qcow2"), golden_format, Path("/c/a.qcow2"))
    return list(
        qemu_arguments(
            SERVICE,
            memory=256 << 20,
            disks=(disk,),
            directory=Path(directory),
            accelerator=accelerator,
            handles=Handles(tap=10, qmp=11, tools=12, agent=13),
        )
    )


def values(found: list[str], option: str) -> list[str]:
    return [found[index + 1] for index, word in enumerate(found) if word == option]


def test_no_instruction_runs_before_the_daemon_says_so() -> None:
    assert "-S" in arguments()


def test_exactly_one_accelerator_is_named() -> None:
    assert values(arguments(), "-accel") == ["tcg,thread=multi,tb-size=256"]
    assert values(arguments(accelerator="kvm"), "-accel") == ["kvm"]


@pytest.mark.parametrize("golden_format", ["qcow2", "raw"])
def test_only_the_overlay_is_writable_and_no_header_decides_what_backs_it(golden_format: str) -> None:
    (disk,) = (json.loads(value) for value in values(arguments(golden_format=golden_format), "-blockdev"))
    assert disk["file"]["filename"] == "/c/a.qcow2"
    backing = disk["backing"]
    assert backing["read-only"] is True
    assert backing["file"] == {"driver": "file", "filename": "/v/a.qcow2", "read-only": True}
    assert backing["driver"] == golden_format
    if golden_format == "qcow2":
        assert backing["backing"] is None


def test_no_flushed_write_can_be_lost_by_the_cache_mode() -> None:
    (disk,) = (json.loads(value) for value in values(arguments(), "-blockdev"))
    assert disk["file"]["cache"]["no-flush"] is False
    assert not any("unsafe" in word for word in arguments())


def test_qemu_opens_no_tap_and_binds_no_socket_by_itself() -> None:
    joined = " ".join(arguments())
    assert "tap,id=net0,fd=10" in joined
    assert "ifname=" not in joined
    assert not any("path=" in value and value.startswith("socket") for value in values(arguments(), "-chardev"))


def test_a_comma_in_a_path_does_not_become_an_option() -> None:
    (console,) = [value for value in values(arguments(directory="/a,b"), "-chardev") if value.startswith("file")]
    assert "path=/a,,b/console.log" in console


def test_the_machine_is_the_same_every_time() -> None:
    assert arguments() == arguments()
    assert values(arguments(), "-machine") == ["pc-q35-7.2"]
