import pytest

from cleanroomd.errors import CleanroomError
from rigs.tiny import PHYSICAL, VIRTUAL, Guest, disk_digest, parse_kernel

GUEST = Guest(name="record", address="10.1.20.12", gateway="10.1.20.1")


def test_the_meta_packages_kernel_is_found() -> None:
    text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n"
    assert parse_kernel(VIRTUAL, text) == "linux-image-6.1.0-56-cloud-amd64"
    with pytest.raises(CleanroomError, match="apt knows no linux-image-amd64"):
        parse_kernel(PHYSICAL, text)
    assert parse_kernel(PHYSICAL, text.replace("-cloud", "")) == "linux-image-6.1.0-56-amd64"


def test_apt_without_lists_is_told_what_to_do() -> None:
    with pytest.raises(CleanroomError) as caught:
        parse_kernel(VIRTUAL, "")
    assert caught.value.hint == "apt-get update"


def test_a_disk_is_rebuilt_when_what_it_is_made_from_changes() -> None:
    other = Guest(name="record", address="10.1.20.13", gateway="10.1.20.1")
    digests = {disk_digest(GUEST, "6.1"), disk_digest(GUEST, "6.12"), disk_digest(other, "6.1")}
    assert len(digests) == 3
    assert disk_digest(GUEST, "6.1") in digests


def test_no_name_can_become_a_shell_command() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        Guest(name="a;reboot", address="10.1.20.12", gateway="10.1.20.1").identity()
