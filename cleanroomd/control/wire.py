"""The model's types as varlink knows them, derived from the model so that there is one definition.

asyncvarlink reads dataclasses, lists and literals; the model has tuples and StrEnums. A mirror is the same
dataclass with those replaced; it is used for its description and for the crossing only.
"""

import functools
import types
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of the run journal."""

    time: float
    """Unix time, 0 when the entry has none."""
    text: str
    event: str
    """The kind of event, for programs: "step-failed"."""
    service: str
    """"" when the entry is about the whole enclosure."""
    fields: dict[str, str]


@functools.cache
def mirror(kind: type[Any]) -> type[Any]:
    """The varlink twin of a dataclass of the model."""
    hints = get_type_hints(kind)
    return make_dataclass(
        kind.__name__,
        [(field.name, _mirrored(hints[field.name])) for field in fields(kind)],
        frozen=True,
        slots=True,
    )


def to_wire(value: Any) -> Any:
    """`value` of the model as its twin."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = mirror(type(value))
        return kind(**{field.name: to_wire(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, tuple):
        return [to_wire(item) for item in value]
    return value


def from_wire(kind: type[T], twin: Any) -> T:
    """The value of the model's type `kind` that `twin` stands for; ValueError if an enumeration disagrees."""
    values = {name: _restored(hint, getattr(twin, name)) for name, hint in get_type_hints(kind).items()}
    return kind(**values)


def _mirrored(hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return list[_mirrored(args[0])]  # type: ignore[misc]
    if origin in (Union, types.UnionType):
        return Union[tuple(_mirrored(arg) for arg in args)]  # noqa: UP007
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Literal[tuple(member.value for member in hint)]
    if is_dataclass(hint) and isinstance(hint, type):
        return mirror(hint)
    return hint


def _restored(hint: Any, value: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(_restored(args[0], item) for item in value)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not types.NoneType)
        return None if value is None else _restored(inner, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_wire(hint, value)
    return value
