"""Every key of a plan file, from its JSON schema: a key that is new there is new here."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_origin

from pydantic import TypeAdapter

from cleanroomd.plan import values
from cleanroomd.plan.jsonschema import json_schema
from rigs.reference.markdown import anchor, attribute_docs, bullets, page, paragraph

Node = Mapping[str, Any]

_KINDS_HEADING = "Kinds of value"
_ANNOTATIONS = frozenset({"description", "default", "examples"})


def document() -> str:
    plan = _Plan(json_schema())
    kinds = (text.partition(": ") for text in attribute_docs(values).values())
    return page(
        "The plan file",
        "cleanroomd/plan/schema.py, probes.py and values.py",
        paragraph(
            "A recovery plan is a TOML file. `cleanroomctl plan check FILE` says everything that is wrong with one, "
            "and `cleanroomctl plan schema` prints what is below for editors. [An example](../examples/plan.toml) "
            "shows most of it. A key that is not listed here is refused."
        ),
        *plan.sections(),
        f"## {_KINDS_HEADING}",
        bullets(f"**{name}**: {what}" for name, _, what in kinds),
    )


class _Plan:
    """Finds its way through the schema; headings are made from the keys that lead to a table."""

    def __init__(self, schema: Node) -> None:
        self._schema = schema
        self._tables: Mapping[str, Node] = schema["$defs"]
        self._headings: dict[str, str] = {}
        self._families: dict[tuple[str, ...], str] = {}
        self._kinds = _kinds()
        for key, node in schema["properties"].items():
            self._discover(_top_heading(key, node), node)
        for heading, name in [(heading, name) for name, heading in self._headings.items()]:
            self._discover_within(heading, name)

    def sections(self) -> Iterator[str]:
        top = self._schema["properties"]
        openings = {_refs(node)[0]: (key, node) for key, node in top.items()}
        families = {names[0]: heading for names, heading in self._families.items()}
        for name, heading in self._headings.items():
            table = self._tables[name]
            if name in families:
                yield f"## {families[name]}"
                yield paragraph("Each is one of the tables that follow, told apart by the key in its heading.")
            level = "###" if any(name in names for names in self._families) else "##"
            yield f"{level} {heading}"
            if name in openings:
                key, node = openings[name]
                need = "Required" if key in self._schema["required"] else "Optional"
                yield paragraph(f"{need}. {node['description']}")
            yield paragraph(table["description"])
            required = table.get("required", [])
            yield bullets(self._key(key, node, key in required) for key, node in table["properties"].items())

    def _discover(self, heading: str, node: Node) -> None:
        """Give every table that `node` leads to, and that has none yet, a heading."""
        names = _refs(node)
        new = [name for name in names if "properties" in self._tables[name] and name not in self._headings]
        if not new:
            return
        if _family(node):
            self._families[tuple(names)] = heading
        for name in new:
            first = next(iter(self._tables[name]["properties"]))
            self._headings[name] = f"{heading.partition(' ')[0]} by `{first}`" if _family(node) else heading

    def _discover_within(self, heading: str, name: str) -> None:
        for key, node in self._tables[name]["properties"].items():
            before = set(self._headings)
            self._discover(f"`{key}` in {heading}", node)
            for found in [found for found in self._headings if found not in before]:
                self._discover_within(self._headings[found], found)

    def _key(self, key: str, node: Node, required: bool) -> str:  # noqa: FBT001
        default = node.get("default")
        need = "required" if required else f"default `{_toml(default)}`" if _says(default) else "optional"
        example = f" For example `{key} = {_toml(node['examples'][0])}`." if node.get("examples") else ""
        return f"**`{key}`** ({self._words(node)}; {need}): {node['description']}{example}"

    def _words(self, node: Node) -> str:
        """The kind of value, and its range."""
        constraints = {key: value for key, value in node.items() if key not in _ANNOTATIONS}
        if (kind := self._kinds.get(_frozen(constraints))) is not None:
            return f"[{kind}]({anchor(_KINDS_HEADING)})"
        match node:
            case {"enum": choices}:
                return _or([f"`{_toml(choice)}`" for choice in choices])
            case {"const": only}:
                return f"`{_toml(only)}`"
            case {"$ref": _}:
                (name,) = _refs(node)
                heading = self._headings.get(name, "")
                return f"table [{heading}]({anchor(heading)})" if heading else self._words(self._tables[name])
            case {"oneOf": _} if heading := self._families.get(tuple(_refs(node)), ""):
                return f"tables [{heading}]({anchor(heading)})"
            case {"anyOf": choices} | {"oneOf": choices}:
                return _or([self._words(choice) for choice in choices])
            case {"type": "array", "items": items}:
                return _list_of(self._words(items), node)
            case {"type": "integer"}:
                return f"whole number{_range(node)}"
            case {"type": "number"}:
                return f"number{_range(node)}"
            case {"type": "boolean"}:
                return "true or false"
            case {"type": "object"}:
                return "table"
            case _:
                return "text"


def _kinds() -> Mapping[str, str]:
    """Frozen schema -> name of the kind of value, for those of `values` that say what they are called."""
    found: dict[str, str] = {}
    for name, text in attribute_docs(values).items():
        kind = getattr(values, name)
        if get_origin(kind) is Annotated:
            found.setdefault(_frozen(TypeAdapter(kind).json_schema()), text.partition(":")[0])
    return found


def _frozen(schema: Node) -> str:
    return json.dumps(schema, sort_keys=True)


def _top_heading(key: str, node: Node) -> str:
    """As the file writes the table: [enclosure], [ports.NAME], [[service]]."""
    if node.get("type") == "array":
        return f"`[[{key}]]`"
    return f"`[{key}.NAME]`" if node.get("type") == "object" else f"`[{key}]`"


def _refs(node: Any) -> list[str]:
    """Names of the definitions that a key's schema refers to, at whichever depth, each once."""
    found: dict[str, None] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                found[value.rpartition("/")[2]] = None
            elif key not in _ANNOTATIONS:
                found.update(dict.fromkeys(_refs(value)))
    elif isinstance(node, list):
        for item in node:
            found.update(dict.fromkeys(_refs(item)))
    return list(found)


def _family(node: Node) -> bool:
    """Whether the value is one of several tables, or a list of such."""
    choices = node.get("items", node).get("oneOf", [])
    return len(choices) > 1 and all("$ref" in choice for choice in choices)


def _says(default: object) -> bool:
    return default is not None and default not in ("", [], {})


def _range(node: Node) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    if least is not None:
        return f", {least} or more"
    return f", {most} at most" if most is not None else ""


def _list_of(items: str, node: Node) -> str:
    least, most = node.get("minItems", 0), node.get("maxItems")
    words = f"non-empty list of {items}" if least == 1 else f"list of {items}"
    words += f", {least} at least" if least > 1 else ""
    return words if most is None else f"{words}, {most} at most"


def _or(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _toml(value: object) -> str:
    """A value as the file would write it."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
