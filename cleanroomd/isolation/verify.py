"""The proof: the live kernel compared with the plan, and its own rules tried packet by packet.

Neither half is enough. The comparison sees every difference from what the compiler made, and nothing of a compiler that
is wrong. The twin gets its rules from the kernel's dump and its expectations from the posture, so it sees both, as far
as its packets reach.
"""

import time

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import bypasses, dump, links, replay, surroundings, twin
from cleanroomd.isolation.endpoints import Names, Scene
from cleanroomd.isolation.netlink import Comparison, RuleWriter
from cleanroomd.model.posture import Posture
from cleanroomd.model.verification import Verification

NAMED_DIFFERENCES = 200
NAMED_MISMATCHES = 100
_ATTEMPTS = 5
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def verify(
    posture: Posture,
    *,
    owner: int | None = None,
    names: Names | None = None,
    compare: bool = True,
    look_around: bool = True,
) -> Verification:
    """Verify the packet filter of the current network namespace; IsolationError if that is not possible.

    `owner` is the netlink port of the socket that owns the tables, None if whoever owns them will do; `names` gives
    networks behind ports the names of the plan's zones. Blocks for about as long as the answer says; the calling
    thread works in another network namespace for a while. Nothing live is changed. `compare` and `look_around`
    leave a part out, to see what the others find alone.
    """
    began = time.monotonic()
    rules, compared = _read(posture, owner)
    scene = Scene(posture, time.clock_gettime(time.CLOCK_BOOTTIME), names or {})
    if contradiction := scene.contradiction():
        raise IsolationError(f"cannot verify: {contradiction}", "correct the plan, and give each its own")
    around = _around(rules, posture) if look_around else ()
    tried, left = replay.chosen(scene)
    with twin.built(scene, rules, replay.hosts(scene)) as copy:
        run = replay.Replay(copy, scene, tried, left, NAMED_MISMATCHES)
        outcome = run.run()
        sent = copy.sent
    differences = compared.differences if compare else ()
    failed = outcome.failed.total()
    return Verification(
        ok=not differences and not around and not failed,
        generation=compared.generation,
        digest=compared.digest,
        seconds=time.monotonic() - began,
        packets=sent,
        flows=outcome.flows.total(),
        differences=differences[:NAMED_DIFFERENCES],
        surroundings=around,
        relations=replay.relations(scene, outcome),
        mismatches=tuple(outcome.mismatches),
        unnamed=max(0, len(differences) - NAMED_DIFFERENCES) + failed - len(outcome.mismatches),
    )


def _read(posture: Posture, owner: int | None) -> tuple[dump.Dump, Comparison]:
    """The rules as bytes and as compared, of one generation."""
    with twin.netfilter() as channel, RuleWriter(twin.netfilter_socket()) as reader:
        for _ in range(_ATTEMPTS):
            rules = dump.read(channel)
            compared = reader.compare(posture, owner=owner)
            if compared.generation == rules.generation:
                return rules, compared
    raise IsolationError(
        "cannot verify: something keeps changing the packet filter",
        "look for a firewall service that reloads all the time, and stop it",
    )


def _around(rules: dump.Dump, posture: Posture) -> tuple[str, ...]:
    """What decides before, beside or besides our tables."""
    foreign = [
        f"table {_FAMILIES.get(family, family)} {name} is not ours"
        for family, name in rules.tables
        if (family, name) not in twin.OURS.values()
    ]
    found = bypasses.findings(surroundings.read(posture), posture, links.wanted_sysctls(posture))
    return (*foreign, *(finding.what for finding in found))
