"""How the rules grow with the flows: to apply, to judge packets by, to verify; how soon a foreign change is seen."""

from collections.abc import Iterator

from rigs.bench.figures import Figure, Spread
from rigs.bench.sandboxed import enclosure_root, measure

SIZES = (100, 1_000, 10_000)
SMALL, LARGE = 10, 10_000
"""Flows between which the cost of a packet must not grow."""
FLAT = 1.2
VERIFY_SECONDS = 1.0
"""For 10,000 flows."""


def run() -> Iterator[Figure]:
    with enclosure_root("", {}) as root:
        found: dict[str, list[float]] = measure("rigs.bench.isolation_inside", root)
    spreads = {name: Spread.of(values) for name, values in found.items()}
    runs = {name: len(values) for name, values in found.items()}

    def figure(name: str, unit: str, *, against: str = "", peer: str = "", goal: float | None = None) -> Figure:
        return Figure(
            name=f"isolation_{name}",
            unit=unit,
            spread=spreads[name],
            runs=runs[name],
            against=against,
            against_value=spreads[peer].median if peer else None,
            goal=goal,
        )

    for size in SIZES:
        yield figure(f"apply_{size}", "s", against="nft -f", peer=f"nft_{size}", goal=1.0)
    for kind in ("allowed", "denied"):
        yield figure(f"{kind}_{SMALL}", "us", against="no rules", peer="no_rules")
        yield figure(f"{kind}_{LARGE}", "us", against=f"at {SMALL} flows", peer=f"{kind}_{SMALL}", goal=FLAT)
    for size in SIZES:
        yield figure(f"verify_{size}", "s", goal=VERIFY_SECONDS if size == max(SIZES) else None)
    yield figure("alarm", "s")
