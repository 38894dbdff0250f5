"""Text of a document: lines of at most 120 columns, and what the code says about its own names."""

import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from types import ModuleType

COLUMNS = 120

_SPACE = "\0"
"""Stands for a space that no line is broken at."""


def page(title: str, source: str, *parts: str) -> str:
    """A document of `parts` with an empty line between them; `source` is the file that a change begins in."""
    note = f"<!-- Written by scripts/reference from {source}: change it there. -->"
    return "\n\n".join([note, f"# {title}", *filter(None, parts)]) + "\n"


def paragraph(text: str) -> str:
    return _fill(text, "", "")


def prose(docstring: str | None) -> str:
    """A docstring, paragraph by paragraph."""
    return "\n\n".join(paragraph(part) for part in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")) if part)


def bullets(items: Iterable[str]) -> str:
    return "\n".join(_fill(item, "- ", "  ") for item in items)


def code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def anchor(heading: str) -> str:
    """The fragment under which a heading is found on the usual Markdown servers."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def attribute_docs(owner: type | ModuleType) -> Mapping[str, str]:
    """Name -> the string below its assignment in a class or module, on one line; Python itself does not keep those."""
    module = sys.modules[owner.__module__] if isinstance(owner, type) else owner
    body = _statements(module)
    if isinstance(owner, type):
        (body,) = (node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner.__name__)
    return dict(_documented(body))


@functools.cache
def _statements(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(module)).body


def doc_of(owner: type | ModuleType, name: str) -> str:
    """What `attribute_docs` has for `name`; LookupError, which names the place, where nobody wrote anything."""
    found = attribute_docs(owner).get(name)
    if found is None:
        raise LookupError(f"{owner.__name__}.{name} has no text below it that says what it means")
    return found


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise(body):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
            case _:
                pass


def _fill(text: str, first: str, others: str) -> str:
    """Lines that never break within a code span, as long as it fits into one."""
    kept = re.sub(r"`[^`]*`", lambda span: span[0].replace(" ", _SPACE), " ".join(text.split()))
    filled = textwrap.fill(
        kept,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(_SPACE, " ")
