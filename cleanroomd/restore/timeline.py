"""When each service will be ready: list scheduling with the slots and the order that the loop itself uses."""

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cleanroomd.restore.order import Outline


@dataclass(frozen=True, slots=True)
class Span:
    """From first instruction to ready, seconds from now."""

    start: float
    ready: float


def timeline(
    outline: Outline,
    *,
    slots: int,
    duration: Callable[[str], float],
    under_way: Mapping[str, float],
    waiting: Mapping[str, Collection[str]],
    warm: Collection[str] = (),
) -> Mapping[str, Span]:
    """Play the starts through, O(n log n). Those in `warm` need no slot.

    `under_way` gives the seconds that each machine which boots already still takes, `waiting` each service that is
    to start with the dependencies that are not ready yet. A service that waits for one which never comes is left out.
    """
    found: dict[str, Span] = {}
    needs = {name: set(missing) for name, missing in waiting.items()}
    place = {name: index for index, name in enumerate(outline.start_order)}
    slotless = frozenset(warm)
    startable: list[tuple[int, str]] = []
    at_once: list[tuple[int, str]] = []

    def may_start(name: str) -> None:
        if name in slotless:
            at_once.append((place[name], name))
        else:
            heapq.heappush(startable, (place[name], name))

    for name, missing in needs.items():
        if not missing:
            may_start(name)
    booting = [(left, place[name], name, 0.0) for name, left in under_way.items()]
    heapq.heapify(booting)
    free = max(1, slots) - sum(name not in slotless for name in under_way)
    now = 0.0
    while True:
        for index, name in at_once:
            heapq.heappush(booting, (now + duration(name), index, name, now))
        at_once.clear()
        while startable and free > 0:
            index, name = heapq.heappop(startable)
            free -= 1
            heapq.heappush(booting, (now + duration(name), index, name, now))
        if not booting:
            return found
        # All that become ready at one instant free their slots together, before anybody takes one.
        now = booting[0][0]
        while booting and booting[0][0] == now:
            _, _, name, start = heapq.heappop(booting)
            found[name] = Span(start, now)
            free += name not in slotless
            for dependant in outline.dependants[name]:
                still = needs.get(dependant)
                if still and name in still:
                    still.remove(name)
                    if not still:
                        may_start(dependant)


def critical_path(outline: Outline, names: Collection[str], duration: Callable[[str], float]) -> float:
    """Seconds until the last of `names` is ready if slots were never short: no order can be faster."""
    wanted = set(names)
    ready: dict[str, float] = {}
    for name in outline.topological:
        if name in wanted:
            before = (ready.get(other, 0.0) for other in outline.services[name].depends_on)
            ready[name] = max(before, default=0.0) + duration(name)
    return max(ready.values(), default=0.0)
