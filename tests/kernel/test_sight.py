"""What a round of the loop looks at: ports and taps, for a price that more taps hardly change."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOOK = """
import json
from cleanroomd.engine import isolating
from cleanroomd.isolation import links

readings, asked = 0, []
for name in ("tap-a", "tap-b"):
    links.make_tap(name)

def routes(opened=links.IPRoute):
    global readings
    readings += 1
    return opened()

def devices(names, found=isolating.network_devices):
    asked.extend(names)
    return found(asked)

links.IPRoute, isolating.network_devices = routes, devices
ports, taps = isolating.links_in_sight()
print(json.dumps({
    "ports": {port.name: port.mac for port in ports}, "taps": sorted(taps), "readings": readings, "asked": sorted(asked)
}))
"""


def test_ports_and_taps_come_from_one_reading_of_the_links_and_udev_is_asked_about_no_tap() -> None:
    """In namespaces of their own, with their own sysfs, which is where udev looks."""
    script = 'mount -t sysfs sysfs /sys && ip link add care0 address "$0" type veth peer name cable0 && exec "$@"'
    mac = "52:54:00:00:00:02"
    shown = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, mac, sys.executable, "-c", LOOK],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout
    found = json.loads(shown)
    assert found["ports"]["care0"] == mac
    assert set(found["ports"]) == {"care0", "cable0"} == set(found["asked"])
    assert found["taps"] == ["tap-a", "tap-b"]
    assert found["readings"] == 1
