"""Random postures in which no two have one address, so that packets can be sent between any two."""

import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import strategies as st

from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, Passage, PortGuard, Posture, TapGuard

ANYWHERE = IPv4Network("0.0.0.0/0")
ZONES = (IPv4Interface("10.77.0.1/24"), IPv4Interface("10.78.0.1/28"))
OUTER, HOST = IPv4Interface("192.168.40.5/24"), IPv4Network("192.168.40.10")


@st.composite
def postures(draw: st.DrawFn, *, ports: Sequence[str], taps: Sequence[str]) -> Posture:
    """`ports` are the uplink, dark or leased, and a care port."""
    uplink, care = ports
    lease = draw(st.booleans())
    addresses = draw(st.sampled_from([ZONES[:1], ZONES, ()]))
    networks = {"": [ANYWHERE], uplink: [HOST]}
    networks[care] = [*(zone.network for zone in ZONES), IPv4Network("10.77.0.128/25"), ANYWHERE]
    for number, tap in enumerate(taps):
        networks[tap] = [IPv4Network(f"10.1.20.{14 + number}"), IPv4Network("10.1.20.0/24")]
    gateways = st.sampled_from([IPv4Address("10.1.20.1"), IPv4Address("10.9.9.1"), None])

    @st.composite
    def allowances(draw: st.DrawFn) -> Allowance:
        origin, target = draw(st.permutations(["", uplink, care, *taps]))[:2]
        protocol, port = draw(st.sampled_from(Protocol)), draw(st.sampled_from([1, 22, 53, 445, 4242, 65535]))
        source, destination = draw(st.sampled_from(networks[origin])), draw(st.sampled_from(networks[target]))
        return Allowance(origin, source, target, destination, protocol, port)

    @st.composite
    def passages(draw: st.DrawFn) -> Passage:
        origin = draw(st.sampled_from([care, *taps]))
        port = draw(st.sampled_from([443, 2575]))
        until = float(int(time.clock_gettime(time.CLOCK_BOOTTIME) + draw(st.sampled_from([600, -5]))))
        return Passage(origin, networks[origin][0], uplink, HOST, Protocol.TCP, port, until, OUTER.ip)

    return Posture(
        ports=(
            PortGuard(
                "uplink",
                uplink,
                "02:00:00:00:40:01",
                dark=not lease,
                addresses=(OUTER,) if lease else (),
                peers=(HOST,) if lease else (),
            ),
            PortGuard(
                "care", care, "02:00:00:00:77:01", dark=draw(st.sampled_from([False, False, True])), addresses=addresses
            ),
        ),
        taps=tuple(
            TapGuard(tap, tap, f"52:54:00:00:00:{number + 1:02}", IPv4Address(f"10.1.20.{14 + number}"), draw(gateways))
            for number, tap in enumerate(taps)
            if draw(st.sampled_from([True, True, False]))
        ),
        allowances=draw(st.frozensets(allowances(), max_size=12)),
        passages=draw(st.frozensets(passages(), max_size=2)) if lease else frozenset(),
    )
