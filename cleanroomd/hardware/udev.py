"""Network devices as udev knows them; the one module that touches pyudev."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import pyudev

from cleanroomd.errors import CleanroomError

_UDEVD_CONTROL = Path("/run/udev/control")
_ARPHRD_ETHER = "1"  # linux/if_arp.h


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """An Ethernet interface: kernel name, MAC in lower case, udev's ID_PATH ("" where no udevd runs)."""

    name: str
    mac: str
    path: str


def network_devices(names: Iterable[str]) -> tuple[NetworkDevice, ...]:
    """The Ethernet interfaces of this network namespace that are among `names`, by name.

    Asked for by name, since to walk through all of them costs the more the more taps there are. A device that vanishes
    while it is read is left out; its own event follows.
    """
    context = _context()
    found = []
    for name in names:
        try:
            device = pyudev.Devices.from_name(context, "net", name)
            if device.attributes.asstring("type").strip() != _ARPHRD_ETHER:
                continue
            mac = device.attributes.asstring("address").strip().lower()
        except (pyudev.DeviceNotFoundError, KeyError, OSError, UnicodeDecodeError):
            continue
        found.append(NetworkDevice(device.sys_name, mac, device.properties.get("ID_PATH", "")))
    return tuple(sorted(found, key=lambda device: device.name))


@cache
def _context() -> pyudev.Context:
    """One for all: it reads udev's configuration, which takes longer than to ask for a device."""
    return pyudev.Context()


class DeviceWatch:
    """Calls `on_event(description)` in the running loop whenever a network device comes, goes or changes.

    Listens to udevd where it runs, so that its properties are there, and to the kernel where it does not.
    """

    def __init__(self, on_event: Callable[[str], None]) -> None:
        self._on_event = on_event
        source = "udev" if _UDEVD_CONTROL.exists() else "kernel"
        try:
            self._monitor = pyudev.Monitor.from_netlink(_context(), source=source)
        except (ImportError, OSError) as error:
            # The library is loaded at the first use of it, which may find no descriptor left.
            raise CleanroomError(
                f"cannot listen to udev: {error}", "libudev1 must be installed, and LimitNOFILE= leave room for it"
            ) from error
        self._monitor.filter_by("net")

    def __enter__(self) -> Self:
        self._monitor.start()
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._drain)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._monitor.fileno())

    def _drain(self) -> None:
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                # ENOBUFS: events were lost. What they said is in sysfs, and every round reads that afresh.
                self._on_event(f"udev events lost ({error.strerror})")
                return
            if device is None:
                return
            self._on_event(f"udev {device.action} {device.sys_name}")
