"""QEMU's command line, as far as safety depends on it."""

import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cleanroomd.machine.arguments import DiskImage, Handles, qemu_arguments
from cleanroomd.model.plan import Card, Controller, Disk, Nic, Service, TcpProbe

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


def arguments(
    service: Service = SERVICE,
    *,
    golden_format: str = "qcow2",
    accelerator: str = "tcg",
    directory: str = "/r",
    disks: int = 1,
    variables: Path | None = None,
) -> list[str]:
    disk = DiskImage("imaging-system", Path("/v/a.qcow2"), golden_format, Path("/c/a.qcow2"))
    return list(
        qemu_arguments(
            service,
            memory=256 << 20,
            disks=(disk,) * disks,
            directory=Path(directory),
            accelerator=accelerator,
            handles=Handles(taps=tuple(range(20, 20 + len(service.cards))), qmp=11, tools=12, agent=13),
            variables=variables,
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
    assert "tap,id=net0,fd=20" in joined
    assert "ifname=" not in joined
    assert not any("path=" in value and value.startswith("socket") for value in values(arguments(), "-chardev"))


def test_a_comma_in_a_path_does_not_become_an_option() -> None:
    (console,) = [value for value in values(arguments(directory="/a,b"), "-chardev") if value.startswith("file")]
    assert "path=/a,,b/console.log" in console


def test_the_machine_is_the_same_every_time() -> None:
    assert arguments() == arguments()
    assert values(arguments(), "-machine") == ["pc-q35-7.2"]


@pytest.mark.parametrize(
    ("controller", "board", "places"),
    [
        (Controller.VIRTIO, "pc-q35-7.2", ["virtio-blk-pci"] * 3),
        (Controller.SCSI, "pc-q35-7.2", [f"scsi-hd,bus=scsi.0,scsi-id={target}" for target in (0, 1, 2)]),
        (Controller.SATA, "pc-q35-7.2", [f"ide-hd,bus=ide.{port},unit=0" for port in (0, 1, 2)]),
        (
            Controller.IDE,
            "pc-i440fx-7.2",
            [f"ide-hd,bus=ide.{channel},unit={unit}" for channel, unit in ((0, 0), (0, 1), (1, 0))],
        ),
    ],
)
def test_disks_are_where_the_plan_says_in_its_order(controller: Controller, board: str, places: list[str]) -> None:
    found = arguments(replace(SERVICE, controller=controller), disks=3)
    assert values(found, "-machine") == [board]
    devices = [device for device in values(found, "-device") if ",drive=" in device]
    assert [device.partition(",drive=")[0] for device in devices] == places
    assert ["bootindex=0" in device for device in devices] == [True, False, False]
    controllers = [device for device in values(found, "-device") if device.startswith("virtio-scsi-pci")]
    assert len(controllers) == (controller is Controller.SCSI)


@pytest.mark.parametrize("nic", Nic)
def test_the_one_network_card_is_the_plans_and_boots_nothing(nic: Nic) -> None:
    (card,) = [device for device in values(arguments(replace(SERVICE, nic=nic)), "-device") if "netdev=" in device]
    model = "virtio-net-pci" if nic is Nic.VIRTIO else nic.value
    assert card == f"{model},netdev=net0,mac=52:54:00:01:20:13,romfile="


def test_each_card_has_the_tap_of_its_own_in_the_order_of_the_plan() -> None:
    second = Card("modalities", "52:54:00:01:40:13", IPv4Address("10.1.40.13"), model=Nic.E1000)
    made = arguments(replace(SERVICE, nics=(second,)))
    assert values(made, "-netdev") == ["tap,id=net0,fd=20,vhost=off", "tap,id=net1,fd=21,vhost=off"]
    cards = [device for device in values(made, "-device") if "netdev=" in device]
    assert cards[1] == "e1000,netdev=net1,mac=52:54:00:01:40:13,romfile="


def test_uefi_firmware_is_read_only_and_what_it_remembers_is_not() -> None:
    found = arguments(variables=Path("/c/uefi-vars.fd"))
    assert values(found, "-machine") == ["pc-q35-7.2,pflash0=firmware,pflash1=variables"]
    nodes = {node["node-name"]: node for node in map(json.loads, values(found, "-blockdev"))}
    assert nodes["firmware"]["read-only"] is nodes["firmware"]["file"]["read-only"] is True
    assert nodes["firmware"]["file"]["filename"] == "/usr/share/OVMF/OVMF_CODE_4M.fd"
    assert nodes["variables"]["file"] == {"driver": "file", "filename": "/c/uefi-vars.fd", "locking": "on"}
    assert "read-only" not in nodes["variables"]
    assert nodes["firmware"]["driver"] == nodes["variables"]["driver"] == "raw"
