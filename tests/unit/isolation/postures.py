"""Random postures: small networks and few ports, so that allowances meet, overlap and repeat."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, PortGuard, Posture, TapGuard

unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""For every property here: a busy machine is no failure."""

BASE = int(IPv4Address("10.1.0.0"))
SPAN = 12
"""Addresses in play."""

addresses = st.integers(0, SPAN - 1).map(lambda offset: IPv4Address(BASE + offset))
networks = st.one_of(
    addresses.map(IPv4Network),
    st.tuples(addresses, st.sampled_from([0, 24, 29, 30, 31])).map(lambda pair: IPv4Network(pair, strict=False)),
)
service_ports = st.sampled_from([1, 53, 443, 0xFFFF])


def _mac(number: int) -> str:
    return (0x525400000000 + number).to_bytes(6, "big").hex(":")


@st.composite
def allowances(draw: st.DrawFn, interfaces: Sequence[str]) -> Allowance:
    """Between the interfaces given, from the enclosure, and now and then with one that nobody guards."""
    return Allowance(
        origin=draw(st.sampled_from(["", "nobody", *interfaces, *interfaces])),
        source=draw(networks),
        target=draw(st.sampled_from(["", "nobody", *interfaces, *interfaces])),
        destination=draw(networks),
        protocol=draw(st.sampled_from(Protocol)),
        port=draw(service_ports),
    )


@st.composite
def postures(draw: st.DrawFn, *, ports: Sequence[str], taps: Sequence[str]) -> Posture:
    """Guards for most of the interfaces, allowances between any of them."""
    chosen_ports = draw(st.sets(st.sampled_from(ports), min_size=draw(st.integers(0, len(ports)))))
    chosen_taps = draw(st.sets(st.sampled_from(taps), min_size=draw(st.integers(0, len(taps)))))
    return Posture(
        ports=tuple(
            PortGuard(
                role=name,
                interface=name,
                mac=_mac(0x100 + ports.index(name)),
                dark=draw(st.sampled_from([False, False, True])),
                addresses=tuple(
                    draw(st.lists(st.builds(_interface, addresses, st.sampled_from([24, 29, 32])), max_size=2))
                ),
            )
            for name in sorted(chosen_ports)
        ),
        taps=tuple(
            TapGuard(name, name, _mac(taps.index(name)), draw(addresses), draw(st.none() | addresses))
            for name in sorted(chosen_taps)
        ),
        allowances=draw(st.frozensets(allowances([*ports, *taps]), max_size=12)),
    )


def _interface(address: IPv4Address, prefix: int) -> IPv4Interface:
    return IPv4Interface(f"{address}/{prefix}")
