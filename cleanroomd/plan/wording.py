"""What the validator found, in the words of the plan's authors.

pydantic says what type it wanted; a stager needs the key, the value and something to copy.
"""

from collections.abc import Callable, Iterator

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cleanroomd.plan.probes import PROBE_TAG
from cleanroomd.plan.problems import Finding, Loc, Suggester, quote, toml
from cleanroomd.plan.schema import table_at

_DICT_KEY = "[key]"
"""What pydantic appends to the location of a dictionary's key when the key itself is wrong."""
_REPEATED = ("service", "flow", "window")
_NAMED = ("ports", "zones")


def schema_findings(failure: ValidationError) -> Iterator[Finding]:
    """Everything about a plan file that breaks the schema, key by key."""
    suggest = Suggester()
    for error in failure.errors(include_url=False):
        yield Finding(_in_file(error), _message(error, suggest))


def _in_file(error: ErrorDetails) -> Loc:
    """The location without what the validator adds to it: tags of probes, marks of keys."""
    loc = error["loc"]
    if loc[-1] == _DICT_KEY and error["type"] != "extra_forbidden":
        return loc[:-1]
    before = ("", *loc)
    return tuple(
        part
        for previous, part in zip(before, loc, strict=False)
        if not (isinstance(previous, int) and str(part).startswith(PROBE_TAG))
    )


def _message(error: ErrorDetails, suggest: Suggester) -> str:
    say = _WORDS.get(error["type"])
    return say(error, suggest) if say else f"{quote(error['input'])} is not possible here; {error['msg']}"


def _from_us(error: ErrorDetails, _suggest: Suggester) -> str:
    return str(error["ctx"]["error"])


def _missing(error: ErrorDetails, _suggest: Suggester) -> str:
    section = error["loc"][0]
    if len(error["loc"]) == 1:
        header = f"[[{section}]]" if section in _REPEATED else f"[{section}]"
        return f"is missing; write a section {header}"
    return f"is missing; {_example(error['loc'])}"


def _unknown_key(error: ErrorDetails, suggest: Suggester) -> str:
    known = list(_fields(error["loc"]))
    meant = suggest(str(error["loc"][-1]), known)
    choice = f"; the keys are {', '.join(known)}"
    return f"is no key here{meant or choice}"


def _one_of(error: ErrorDetails, suggest: Suggester) -> str:
    expected = error["ctx"]["expected"].replace("'", '"')
    value = error["input"]
    choices = expected.replace(" or ", ", ").replace('"', "").split(", ")
    meant = suggest(value, choices) if isinstance(value, str) else ""
    return f"{quote(value)} is not possible here{meant or f'; write {expected}'}"


def _too_low(error: ErrorDetails, _suggest: Suggester) -> str:
    return f"{quote(error['input'])} is out of range; the least is {error['ctx']['ge']}"


def _too_high(error: ErrorDetails, _suggest: Suggester) -> str:
    return f"{quote(error['input'])} is out of range; the most is {error['ctx']['le']}"


def _too_few(error: ErrorDetails, _suggest: Suggester) -> str:
    return f"is empty; {_example(error['loc'])}"


def _wrong_type(what: str) -> Callable[[ErrorDetails, Suggester], str]:
    def say(error: ErrorDetails, _suggest: Suggester) -> str:
        return f"{quote(error['input'])} is {what}; {_example(error['loc'])}"

    return say


def _example(loc: Loc) -> str:
    """What to write at a place, taken from the examples of the schema."""
    section = str(loc[0])
    if len(loc) <= 2 and section in _REPEATED:
        return f"write a section [[{section}]]"
    if len(loc) <= 2 and section in _NAMED:
        return f"write sections [{section}.NAME]"
    if len(loc) == 1:
        return f"write a section [{section}]"
    keys = [part for part in loc if isinstance(part, str)]
    field = _fields(loc).get(keys[-1])
    if field is None or not field.examples:
        return "see `cleanroomctl plan schema`"
    return f"write for example {keys[-1]} = {toml(field.examples[0])}"


def _fields(loc: Loc) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in table_at(loc).model_fields.items()}


_WORDS: dict[str, Callable[[ErrorDetails, Suggester], str]] = {
    "value_error": _from_us,
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "enum": _one_of,
    "literal_error": _one_of,
    "greater_than_equal": _too_low,
    "less_than_equal": _too_high,
    "too_short": _too_few,
    "int_type": _wrong_type("no whole number"),
    "bool_type": _wrong_type("neither true nor false"),
    "string_type": _wrong_type("no text in quotes"),
    "list_type": _wrong_type("no list"),
    "dict_type": _wrong_type("no table"),
    "model_type": _wrong_type("no table"),
}
