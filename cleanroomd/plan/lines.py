"""On which line of the file a place of the document was written.

tomllib keeps no positions, so a file that has problems is parsed a second time, by a parser that does.
"""

import tomllib
from collections.abc import Sequence

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from cleanroomd.plan.problems import Loc

_KEYS = ("bare_key", "quoted_key", "dotted_key")
_Found = tuple[int, int | None]
"""How many parts of the location were found, and the line of the last."""


class Lines:
    """Looks up places of a document that tomllib could read from the same text."""

    def __init__(self, text: bytes) -> None:
        self._tables: dict[Loc, list[tuple[Node, list[Node]]]] = {}
        self._elements: dict[int, list[Node]] = {}
        self._tree = Parser(Language(tree_sitter_toml.language())).parse(text)
        root = self._tree.root_node
        lengths: dict[Loc, int] = {}
        for node in root.named_children:
            if node.type == "pair":
                self._tables.setdefault((), [(root, [])])[0][1].append(node)
            elif node.type in ("table", "table_array_element"):
                self._add_table(node, lengths)

    def line(self, loc: Loc) -> int | None:
        """The line, from 1, of the innermost part of `loc` that the file has; None when it has none."""
        best: _Found = (0, None)
        for length in range(len(loc), -1, -1):
            for header, pairs in self._tables.get(loc[:length], ()):
                here = _line(header) if length else None
                best = max(best, (length, here), self._in_pairs(pairs, loc, length), key=lambda found: found[0])
        return best[1]

    def _add_table(self, node: Node, lengths: dict[Loc, int]) -> None:
        """`[a.b]` below `[[a]]` belongs to the last element of `a`, as in TOML."""
        header, *rest = (child for child in node.named_children if child.type != "comment")
        place: Loc = ()
        keys = _parts(header)
        for position, key in enumerate(keys):
            place = (*place, key)
            is_element = node.type == "table_array_element" and position == len(keys) - 1
            if is_element:
                lengths[place] = lengths.get(place, 0) + 1
                self._tables.setdefault(place, [(node, [])])
            if place in lengths:
                place = (*place, lengths[place] - 1)
            elif position < len(keys) - 1:
                self._tables.setdefault(place, [(node, [])])
        self._tables.setdefault(place, []).append((node, rest))

    def _in_pairs(self, pairs: Sequence[Node], loc: Loc, depth: int) -> _Found:
        best: _Found = (depth, None)
        for pair in pairs:
            if pair.type != "pair":
                continue
            key, *value = (child for child in pair.named_children if child.type != "comment")
            keys = _parts(key)
            common = 0
            while common < len(keys) and loc[depth + common : depth + common + 1] == (keys[common],):
                common += 1
            if not common:
                continue
            found: _Found = (depth + common, _line(pair))
            if common == len(keys) and value:
                found = max(found, self._in_value(value[0], loc, depth + common), key=lambda one: one[0])
            best = max(best, found, key=lambda one: one[0])
        return best

    def _in_value(self, value: Node, loc: Loc, depth: int) -> _Found:
        if value.type == "inline_table":
            return self._in_pairs(value.named_children, loc, depth)
        index = loc[depth] if depth < len(loc) else None
        if value.type == "array" and isinstance(index, int):
            if value.id not in self._elements:
                self._elements[value.id] = [child for child in value.named_children if child.type != "comment"]
            elements = self._elements[value.id]
            if index < len(elements):
                inside = self._in_value(elements[index], loc, depth + 1)
                return inside if inside[0] > depth + 1 else (depth + 1, _line(elements[index]))
        return depth, None


def _line(node: Node) -> int:
    return node.start_point.row + 1


def _parts(key: Node) -> tuple[str, ...]:
    if key.type == "dotted_key":
        return tuple(part for child in key.named_children if child.type in _KEYS for part in _parts(child))
    text = (key.text or b"").decode()
    return (tomllib.loads(f"key = {text}")["key"] if key.type == "quoted_key" else text,)
