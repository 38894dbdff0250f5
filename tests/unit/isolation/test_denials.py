"""What was denied is told in few lines: exact numbers, examples, and ever more rarely."""

from ipaddress import IPv4Address, IPv4Interface

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.isolation.counts import DeniedFlow
from cleanroomd.isolation.denials import LINES, Denials, Denied
from cleanroomd.isolation.ruleset import Tally
from cleanroomd.model.posture import PortGuard, Posture, TapGuard
from tests.unit.isolation.postures import unhurried

CARE = PortGuard("care", "eth0", "02:00:00:00:00:01", dark=False, addresses=(IPv4Interface("10.77.0.1/24"),))
TAPS = tuple(
    TapGuard(f"service-{number}", f"tap-{number}", "52:54:00:00:00:01", IPv4Address("10.1.0.0") + number, None)
    for number in range(9)
)
POSTURE = Posture(ports=(CARE,), taps=TAPS)


def denied(
    pairs: dict[tuple[str, str], int],
    flows: dict[tuple[str, str, int, int], int] | None = None,
    guards: dict[str, int] | None = None,
) -> Denied:
    noted = {
        DeniedFlow(IPv4Address(source), IPv4Address(destination), protocol, port): Tally(count)
        for (source, destination, protocol, port), count in (flows or {}).items()
    }
    return Denied(guards or {}, {pair: Tally(count) for pair, count in pairs.items()}, noted)


def test_a_line_has_the_number_and_what_most_of_it_was() -> None:
    flows = {
        ("10.77.0.100", "10.1.0.3", 6, 23): 300,
        ("10.77.0.100", "10.1.0.3", 1, 0): 8,
        ("10.77.0.101", "10.1.0.3", 17, 161): 4,
        ("10.77.0.101", "10.1.0.4", 17, 161): 99,
    }
    told = Denials().lines(denied({("eth0", "tap-3"): 312}, flows), POSTURE, 0.0)
    assert told == [
        "denied 312 packets from port care to service-3: tcp 23 at 10.1.0.3 (300), icmp at 10.1.0.3 (8) and 1 others"
    ]


def test_the_enclosure_and_the_guards_have_names() -> None:
    told = Denials().lines(denied({("", "tap-1"): 1}, {}, {"ingress//tap-2": 5, "egress//eth0": 2}), POSTURE, 0.0)
    assert told == [
        "denied 5 packets at the guard of service-2: not in its own name, or not IPv4",
        "denied 2 packets at the gate to port care: past the rules",
        "denied 1 packet from the enclosure to service-1",
    ]


def test_what_goes_on_is_told_ever_more_rarely_and_completely() -> None:
    denials, pair = Denials(), ("eth0", "tap-1")
    told: list[tuple[int, str]] = []
    for second in range(1600):
        told += [(second, line) for line in denials.lines(denied({pair: second + 1}), POSTURE, float(second))]
    assert told == [
        (0, "denied 1 packet from port care to service-1"),
        (10, "denied 10 packets from port care to service-1 in 10 s"),
        (70, "denied 60 packets from port care to service-1 in 60 s"),
        (430, "denied 360 packets from port care to service-1 in 6 min"),
        (1030, "denied 600 packets from port care to service-1 in 10 min"),
    ]


def test_after_a_silence_it_is_told_at_once_again() -> None:
    denials, pair = Denials(), ("eth0", "tap-1")
    for second in range(100):
        denials.lines(denied({pair: second + 1}), POSTURE, float(second))
    for second in range(100, 1100, 5):
        denials.lines(denied({pair: 100}), POSTURE, float(second))
    assert denials.lines(denied({pair: 101}), POSTURE, 1100.0)


def test_a_counter_that_began_anew_is_told_from_its_beginning() -> None:
    denials, pair = Denials(), ("eth0", "tap-1")
    denials.lines(denied({pair: 500}), POSTURE, 0.0)
    assert denials.lines(denied({pair: 3}), POSTURE, 20.0) == ["denied 3 packets from port care to service-1"]


@unhurried
@given(
    st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from(["", "eth0", "tap-1", "gone"]), st.sampled_from(["", "tap-2", "tap-3"])),
            st.integers(1, 10**9),
        ),
        max_size=8,
    )
)
def test_a_flood_is_a_few_lines(looks: list[dict[tuple[str, str], int]]) -> None:
    denials = Denials()
    for second, pairs in enumerate(looks):
        assert len(denials.lines(denied(pairs), POSTURE, float(second * 5))) <= LINES


def test_what_did_not_fit_is_told_next() -> None:
    denials = Denials()
    everything = denied({("eth0", tap.interface): number + 1 for number, tap in enumerate(TAPS)})
    told = [denials.lines(everything, POSTURE, float(second)) for second in range(4)]
    assert [len(lines) for lines in told] == [3, 3, 3, 0]
    assert "9 packets" in told[0][0]
    assert len({line for lines in told for line in lines}) == len(TAPS)
