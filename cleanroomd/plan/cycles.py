"""Circles in a directed graph of dependencies, found in time linear in its size."""

from collections import deque
from collections.abc import Iterator, Sequence


def cycles(edges: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[int]]]:
    """For each group of nodes that need each other: a shortest circle through its lowest node, starting
    there, and the members of the group that are not on it, ascending. Groups come by their lowest node.
    """
    groups = [group for group in _components(edges) if len(group) > 1 or group[0] in edges[group[0]]]
    for group in sorted(sorted(group) for group in groups):
        circle = _circle(edges, group[0], set(group))
        on_it = set(circle)
        yield circle, [node for node in group if node not in on_it]


def _circle(edges: Sequence[Sequence[int]], start: int, within: set[int]) -> list[int]:
    """Breadth first, so that the first way back to `start` is a shortest one; none leads out of the group."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while start not in came_from:
        node = queue.popleft()
        for following in edges[node]:
            if following in within and following not in came_from:
                came_from[following] = node
                queue.append(following)
    circle = [start]
    while came_from[circle[-1]] != start:
        circle.append(came_from[circle[-1]])
    return [start, *reversed(circle[1:])]


def _components(edges: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Strongly connected components (Tarjan 1972), without recursion: a chain of 10,000 is a plan too."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    open_nodes: list[int] = []
    is_open: set[int] = set()
    for root in range(len(edges)):
        if root in order:
            continue
        path = [(root, iter(edges[root]))]
        while path:
            node, following = path[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                open_nodes.append(node)
                is_open.add(node)
            for target in following:
                if target not in order:
                    path.append((target, iter(edges[target])))
                    break
                if target in is_open:
                    low[node] = min(low[node], order[target])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == order[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(open_nodes.pop())
                        is_open.discard(component[-1])
                    yield component
