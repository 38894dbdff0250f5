"""What a process gives up before it talks to a machine that may be hostile.

Nothing here needs privilege, nothing can be taken back. The parts that every supported kernel has raise
OSError when refused; changing the user, emptying the bounding set and Landlock are done where they can be.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable

ADDRESS_SPACE = 512 * 1024 * 1024
OPEN_FILES = 16
NOBODY = 65534
NICENESS = 5

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64

# linux/landlock.h; the system call numbers are the same on every architecture
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_NET_PORT = 2
_ACCESS_NET_CONNECT_TCP = 1 << 1
_ACCESS_NET_BIND_TCP = 1 << 0
_SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL = 0b11
_FILE_ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Landlock ABI -> number of file access rights it knows; from ABI 5 on there are 16."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot {what}: {os.strerror(error)}")
    return result


def _prctl(option: int, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return int(_libc.prctl(option, *(ctypes.c_ulong(argument) for argument in padded)))


def _become_nobody() -> None:
    """Leave user 0, whose files need no capability; not possible where a user namespace maps no other."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        return


def _drop_inheritance() -> None:
    """Empty the ambient set, and the bounding set as far as permitted."""
    for capability in range(_CAPABILITIES):
        if _prctl(_PR_CAPBSET_READ, capability) == 1:
            _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def _clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (capset(2): two blocks of three 32-bit masks)."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "drop capabilities")


def _limit_resources() -> None:
    limits = {
        resource.RLIMIT_AS: ADDRESS_SPACE,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (allowed, allowed))


def _landlock(ports: Iterable[int]) -> None:
    """No file at all, and TCP connections to `ports` only; no effect on kernels without Landlock."""
    abi = _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    if abi < 1:
        return
    network = _ACCESS_NET_CONNECT_TCP | _ACCESS_NET_BIND_TCP if abi >= 4 else 0
    scope = _SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL if abi >= 6 else 0
    files = (1 << _FILE_ACCESS_BITS.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", files, network, scope)
    ruleset = _check(
        _libc.syscall(_SYS_CREATE_RULESET, attributes, ctypes.c_size_t(8 * (1 + (abi >= 4) + (abi >= 6))), 0),
        "make a Landlock ruleset",
    )
    try:
        if network:
            for port in set(ports):
                rule = struct.pack("=QQ", _ACCESS_NET_CONNECT_TCP, port)
                _check(_libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_NET_PORT, rule, 0), "allow a port to Landlock")
        _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0), "apply Landlock")
    finally:
        os.close(ruleset)


def confine(ports: Iterable[int], *, parent: int) -> None:
    """Confine this process, which must be single-threaded and have imported all that it will need.

    It ends with the thread that started it in process `parent`. Its standard streams remain: pipes, since no
    file can grow any more. Raises OSError where a restriction is refused that every supported kernel has.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.nice(NICENESS)
    _drop_inheritance()
    _become_nobody()
    _clear_capabilities()
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "set no_new_privs")
    # After the change of user, which resets it.
    _check(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "follow the parent's death")
    if os.getppid() != parent:
        raise ProcessLookupError("the parent is gone")
    _landlock(ports)
    _limit_resources()
