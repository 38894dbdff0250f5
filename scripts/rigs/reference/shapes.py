"""The JSON of a dataclass: every field with its type and meaning, and the tables and lists of words within it."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from cleanroomd.cli.probes import protocol_name
from cleanroomd.model.plan import Probe
from cleanroomd.plan.jsonschema import json_schema
from rigs.reference.markdown import attribute_docs, bullets, doc_of

_PLAIN = {
    str: "text",
    bytes: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dict[str, str]: "table of texts",
    IPv4Address: "text, an IPv4 address",
    IPv4Interface: "text, an IPv4 address with the length of its network",
    IPv4Network: "text, an IPv4 network",
}
_PROBES = frozenset(get_args(Probe))
_IN_PROBES = {"port": "Port of the machine that it connects to.", "tls": "Whether it speaks TLS."}
"""What means the same in every kind of probe."""
PROBE = "probe"
"""What a value of any of the kinds of probe is called."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: str
    """What JSON holds there, in words; each table and list of words within it as `Link` has it."""
    text: str


Link = Callable[[str], str]
"""Turns the title of a table, of a list of words, or PROBE into how a reader gets there."""


def title(kind: type[Any]) -> str:
    """What a table or list of words is called: "service status", "dicom probe"."""
    if kind in _PROBES:
        return f"{protocol_name(kind)} probe"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def kinds_within(document: type[Any]) -> list[type[Any]]:
    """`document`, and every dataclass and StrEnum that its fields lead to, each once, in the order of the fields."""
    found: dict[type[Any], None] = {}

    def look(hint: Any) -> None:
        for part in get_args(hint):
            look(part)
        if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, StrEnum)) and hint not in found:
            found[hint] = None
            if is_dataclass(hint):
                for inner in get_type_hints(hint).values():
                    look(inner)

    look(document)
    return list(found)


def members(kind: type[Any], link: Link) -> Iterator[Field]:
    """The fields of a dataclass; LookupError for one that nobody explained."""
    if kind in _PROBES:
        yield Field("protocol", "text", f'Always "{protocol_name(kind)}".')
    hints = get_type_hints(kind)
    for field in fields(kind):
        yield Field(field.name, _words(hints[field.name], link), in_json(_meaning(kind, field.name)))


def field_bullets(kind: type[Any], link: Link) -> str:
    return bullets(f"**`{field.name}`** ({field.kind}): {field.text}" for field in members(kind, link))


def word_bullets(kind: type[StrEnum]) -> str:
    docs = attribute_docs(kind)
    return bullets(f"**`{word}`**" + (f": {docs[word.name]}" if word.name in docs else "") for word in kind)


def in_json(text: str) -> str:
    """A docstring as a reader of JSON understands it."""
    return re.sub(r"\bNone\b", "null", text)


def _words(hint: Any, link: Link) -> str:
    if get_origin(hint) is tuple:
        return f"list of {_words(get_args(hint)[0], link)}"
    if get_origin(hint) in (Union, UnionType):
        if frozenset(get_args(hint)) >= _PROBES:
            return link(PROBE)
        return " or ".join("null" if part is NoneType else _words(part, link) for part in get_args(hint))
    return _PLAIN[hint] if hint in _PLAIN else link(title(hint))


def _meaning(kind: type[Any], name: str) -> str:
    """The text below the field, or that of the plan's key of the same name: one of both exists."""
    if kind in _PROBES and name in _IN_PROBES:
        return _IN_PROBES[name]
    described = _schema().get(kind.__name__.removesuffix("Probe") + "Table", {}).get(name)
    return described if described is not None and name not in attribute_docs(kind) else doc_of(kind, name)


@functools.cache
def _schema() -> Mapping[str, Mapping[str, str]]:
    """Table of the plan file -> key -> what it means."""
    tables = json_schema()["$defs"]
    return {
        table: {key: node["description"] for key, node in schema["properties"].items() if "description" in node}
        for table, schema in tables.items()
        if "properties" in schema
    }
