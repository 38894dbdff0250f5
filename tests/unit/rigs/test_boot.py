"""Which modules a machine's initial system loads, and in which order."""

from pathlib import Path

import pytest

from rigs.hospital.boot import closure, read_dependencies
from rigs.hospital.errors import HospitalError

DEPENDENCIES = """\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/acpi/button.ko.xz:
kernel/crypto/crc32c-generic.ko.xz:
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "modules.dep").write_text(DEPENDENCIES, encoding="utf-8")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n", encoding="utf-8")
    return tmp_path


def test_what_a_module_needs_comes_first_and_once(modules: Path) -> None:
    assert closure(read_dependencies(modules), ("net_failover", "virtio_net", "crc32c_generic")) == [
        "kernel/net/core/failover.ko.xz",
        "kernel/drivers/net/net_failover.ko.xz",
        "kernel/drivers/net/virtio_net.ko.xz",
        "kernel/crypto/crc32c-generic.ko.xz",
    ]


def test_what_the_kernel_has_built_in_is_not_loaded(modules: Path) -> None:
    assert closure(read_dependencies(modules), ("virtio_pci", "button")) == ["kernel/drivers/acpi/button.ko.xz"]


def test_a_module_that_is_nowhere_ends_the_build(modules: Path) -> None:
    with pytest.raises(HospitalError, match="no module virtio_blk"):
        closure(read_dependencies(modules), ("virtio_blk",))
