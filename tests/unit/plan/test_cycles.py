"""Circles of dependencies, against the definition."""

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.plan.cycles import cycles
from tests.unit.plan.writer import unhurried

Graph = list[list[int]]

graphs: st.SearchStrategy[Graph] = st.integers(1, 8).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, size - 1), unique=True, max_size=4), min_size=size, max_size=size)
)


def reachable(graph: Graph, start: int) -> set[int]:
    seen: set[int] = set()
    queue = [start]
    while queue:
        for following in graph[queue.pop()]:
            if following not in seen:
                seen.add(following)
                queue.append(following)
    return seen


@unhurried
@given(graphs)
def test_every_node_of_a_circle_is_named_once_and_no_other(graph: Graph) -> None:
    named = [node for circle, others in cycles(graph) for node in (*circle, *others)]
    assert sorted(named) == [node for node in range(len(graph)) if node in reachable(graph, node)]


@unhurried
@given(graphs)
def test_a_circle_follows_the_dependencies_and_starts_at_its_lowest(graph: Graph) -> None:
    for circle, others in cycles(graph):
        assert all(following in graph[node] for node, following in zip(circle, [*circle[1:], circle[0]], strict=True))
        assert circle[0] == min([*circle, *others])
        assert all(reachable(graph, node) >= {circle[0]} for node in others)


def test_a_circle_of_all_services_needs_no_recursion() -> None:
    size = 20_000
    ((circle, others),) = cycles([[(node + 1) % size] for node in range(size)])
    assert circle == list(range(size))
    assert not others


def test_a_hub_names_a_shortest_circle_and_who_else_is_tangled_up() -> None:
    assert list(cycles([[1, 2, 3], [0], [0], [3, 0]])) == [([0, 1], [2, 3])]
