"""What the appliance's system in a container is made from."""

from rigs.nspawn import base

LOCK = """annotated-types==0.8.0 \\
    --hash=sha256:13b2
systemd-python==235 \\
    --hash=sha256:4e57
win-inet-pton==1.1.0 ; sys_platform == 'win32' \\
    --hash=sha256:eaf0
"""


def test_the_libraries_are_those_of_the_lock_file_without_what_debian_has_compiled() -> None:
    assert base.libraries(LOCK) == LOCK.replace("systemd-python==235 \\\n    --hash=sha256:4e57\n", "")


def test_every_library_that_comes_from_debian_is_in_the_lock_file() -> None:
    lock = base.LOCK_FILE.read_text(encoding="utf-8")
    for name in base.FROM_DEBIAN:
        assert f"\n{name}==" in lock
        assert f"{name}==" not in base.libraries(lock)


def test_sources_of_the_hospital_become_sources_of_this_suite() -> None:
    assert base.of_this_suite("deb http://mirror.example bookworm main") == "deb http://mirror.example trixie main"
    line = "deb http://mirror.example/security bookworm-security main"
    assert base.of_this_suite(line) == "deb http://mirror.example/security trixie-security main"
