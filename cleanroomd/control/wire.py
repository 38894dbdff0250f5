"""The model's types as varlink knows them, derived from the model so that there is one definition.

asyncvarlink reads dataclasses, lists and literals; the model has tuples and StrEnums. A mirror is the same
dataclass with those replaced; it is used for its description and for the way out only. The way back needs no
library: `status` starts in half the time without one (docs/decisions/0009).
"""

import functools
import types
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

NAME = "org.cleanroomd.Control"
"""Of the varlink interface."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of the run journal."""

    time: float
    """Unix time, 0 when the entry has none."""
    text: str
    """What happened, in words."""
    event: str
    """The kind of event, for programs: "step-failed"."""
    service: str
    """"" when the entry is about the whole enclosure."""
    fields: dict[str, str]
    """What else the event has to say, by name."""


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


def from_json(hint: Any, untrusted: object) -> Any:
    """The value of the model's type `hint` that parsed JSON stands for; ValueError when it stands for none.

    As strict as asyncvarlink: only what may be null can be missing, and nothing may be there that is unknown.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not types.NoneType)
        return None if untrusted is None else from_json(inner, untrusted)
    if is_dataclass(hint) and isinstance(hint, type):
        return hint(**_members(hint, _checked(dict, untrusted)))
    if origin is tuple:
        return tuple(from_json(args[0], item) for item in _checked(list, untrusted))
    if origin is dict:
        return {key: from_json(args[1], value) for key, value in _checked(dict, untrusted).items()}
    if issubclass(hint, StrEnum):
        return hint(_checked(str, untrusted))
    if hint is float and type(untrusted) is int:
        return _float(untrusted)
    return _checked(hint, untrusted)


def _members(kind: type[Any], untrusted: dict[str, object]) -> dict[str, object]:
    hints = {field.name: field.type for field in fields(kind)}
    if unknown := untrusted.keys() - hints.keys():
        raise ValueError(f"{kind.__name__} has no {min(unknown)}")
    return {name: from_json(hint, untrusted.get(name)) for name, hint in hints.items()}


def _checked(kind: type[T], untrusted: object) -> T:
    # Not isinstance: a bool is no number.
    if type(untrusted) is not kind:
        raise ValueError(f"a {type(untrusted).__name__} where a {kind.__name__} belongs")
    return untrusted


def _float(number: int) -> float:
    try:
        return float(number)
    except OverflowError as error:
        raise ValueError("a number beyond what a float can hold") from error


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
