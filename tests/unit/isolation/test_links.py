"""When a tap answers for a whole network of peers: the one decision in the links module that is pure."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from cleanroomd.isolation.links import answers_for_networks
from cleanroomd.model.posture import TapGuard


@pytest.mark.parametrize(
    ("gateway", "neighbours", "answers"),
    [
        ("10.1.20.1", (), False),
        ("10.1.20.1", ("10.1.20.15/32",), False),
        ("10.1.20.1", ("10.77.0.0/24",), False),
        ("10.1.20.1", ("10.1.20.0/24",), True),
        ("10.1.20.1", ("10.77.0.0/24", "10.1.0.0/16"), True),
        (None, ("10.77.0.0/24",), True),
        (None, ("10.1.20.15/32",), False),
    ],
)
def test_only_for_networks_that_the_machine_may_take_for_its_own(
    gateway: str | None, neighbours: tuple[str, ...], answers: bool
) -> None:
    guard = TapGuard(
        service="imaging",
        interface="cr-img",
        mac="52:54:00:00:00:01",
        address=IPv4Address("10.1.20.14"),
        gateway=IPv4Address(gateway) if gateway else None,
        neighbours=tuple(IPv4Network(text) for text in neighbours),
    )
    assert answers_for_networks(guard) is answers
