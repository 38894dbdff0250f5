"""VLAN sub-interfaces as netlink tells of them, where the kernel of the tests cannot make one."""

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cleanroomd.isolation import links


class NoAddresses:
    def get_addr(self, _family: int) -> tuple[()]:
        return ()


def told(index: int, name: str, **attributes: Any) -> ifinfmsg:
    """A link as it comes from the socket: packed, and unpacked again."""
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", "52:54:00:00:00:02"), *attributes.items()]
    message.encode()
    received = ifinfmsg(bytes(message.data))
    received.decode()
    return received


def test_a_sub_interface_is_told_from_the_port_below_it_by_its_kind() -> None:
    data = {"attrs": [("IFLA_VLAN_ID", 30)]}
    info = {"attrs": [("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data)]}
    port = told(3, "care", IFLA_CARRIER_CHANGES=5, IFLA_IFALIAS="cleanroom 5 clean")
    below, above = links._interfaces(NoAddresses(), [port, told(7, "vlan30-care", IFLA_LINK=3, IFLA_LINKINFO=info)])
    assert (below.vlan, below.parent, below.carrier_changes, below.found) == (None, "", 5, links.Found())
    assert (above.vlan, above.parent, above.index) == (30, "care", 7)


def test_the_request_names_the_port_the_kind_and_the_tag() -> None:
    asked: dict[str, object] = {}

    class Kernel:
        def link(self, command: str, **values: object) -> None:
            asked.update(values, command=command)

    links._add_vlan(Kernel(), "vlan30-care", 3, 30)
    assert asked == {"command": "add", "ifname": "vlan30-care", "kind": "vlan", "link": 3, "vlan_id": 30}


@pytest.mark.parametrize(
    ("kind", "attributes", "stacked"),
    [
        ("", {}, False),
        ("veth", {"IFLA_LINK": 3}, False),
        ("veth", {"IFLA_LINK": 3, "IFLA_LINK_NETNSID": 0}, False),
        ("dummy", {}, False),
        ("macvlan", {"IFLA_LINK": 3}, True),
        ("macvlan", {"IFLA_LINK": 3, "IFLA_LINK_NETNSID": 0}, True),
        ("bridge", {}, True),
        ("bond", {}, True),
        ("vlan", {"IFLA_LINK": 3}, True),
        ("something", {"IFLA_LINK": 3}, True),
    ],
)
def test_a_card_is_told_from_what_is_made_of_one(kind: str, attributes: dict[str, int], stacked: bool) -> None:
    info = {"IFLA_LINKINFO": {"attrs": [("IFLA_INFO_KIND", kind)]}} if kind else {}
    (link,) = links._interfaces(NoAddresses(), [told(7, "care", **attributes, **info)])
    assert (link.stacked, link.permanent) == (stacked, False)


def test_a_mac_is_a_cards_own_when_its_driver_says_so() -> None:
    (link,) = links._interfaces(NoAddresses(), [told(7, "care", IFLA_PERM_ADDRESS=bytes.fromhex("525400000003"))])
    assert (link.mac, link.permanent) == ("52:54:00:00:00:03", True)


@pytest.mark.parametrize(
    ("alias", "marked", "found"),
    [
        ("cleanroom 5 clean", True, links.Found()),
        ("cleanroom 4 clean", True, None),
        ("to the core switch", False, None),
        ("", False, None),
    ],
)
def test_the_mark_outlasts_the_cable(alias: str, marked: bool, found: links.Found | None) -> None:
    (link,) = links._interfaces(NoAddresses(), [told(7, "care", IFLA_CARRIER_CHANGES=5, IFLA_IFALIAS=alias)])
    assert (link.marked, link.found) == (marked, found)
