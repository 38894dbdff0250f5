"""The Markdown of this package as man(7): headings, paragraphs, bullets, blocks of code, links and two typefaces."""

import re
from collections.abc import Iterator
from itertools import pairwise

_TAGGED = re.compile(r"(?P<tag>(?:\*\*|`)[^:]+?)(?::\s+(?P<text>.*))?", re.DOTALL)
_SPAN = re.compile(r"\*\*`?(?P<strong>[^*`]+)`?\*\*|`(?P<code>[^`]+)`|\[(?P<link>(?:`[^`]*`|[^\]`])+)\]\([^)]*\)")


_HEADING = re.compile(r"\.S[HS] ")


def convert(markdown: str) -> str:
    """As many lines as it takes, each a request or text of man(7); headings of the first rank are left out."""
    lines = [line for block in re.split(r"\n{2,}", markdown.strip()) for line in _block(block)]
    return (
        "\n".join(line for before, line in pairwise(["", *lines]) if line != ".PP" or not _HEADING.match(before)) + "\n"
    )


def escape(text: str) -> str:
    """Text that troff prints as it is: a hyphen can be copied into a shell, and no line is a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\u00a0", "\\ ")
    escaped = escaped.replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def _block(block: str) -> Iterator[str]:
    if block.startswith(("<!--", "# ")):
        return
    if block.startswith("## "):
        yield f".SH {_heading(block[3:]).upper()}"
    elif block.startswith("### "):
        yield f".SS {_heading(block[4:])}"
    elif block.startswith("```"):
        yield from (".PP", ".in +4n", ".EX")
        yield from map(escape, block.splitlines()[1:-1])
        yield from (".EE", ".in")
    elif block.startswith("- "):
        for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]:
            yield from _item(" ".join(item.split()))
    else:
        yield ".PP"
        yield from _text(" ".join(block.split()))


def _item(item: str) -> Iterator[str]:
    match = _TAGGED.fullmatch(item)
    if match is None:
        yield ".IP \\[u2022] 2"
        yield from _text(item)
        return
    yield ".TP"
    yield _spans(match["tag"])
    yield from _text(match["text"] or "\\&")


def _heading(text: str) -> str:
    return escape(_SPAN.sub(_inner, text))


def _text(text: str) -> Iterator[str]:
    """One sentence or half of one a line, as troff likes it."""
    for sentence in re.split(r"(?<=[.:;]) (?=\S)", text):
        yield _spans(sentence)


def _spans(text: str) -> str:
    parts = []
    end = 0
    for span in _SPAN.finditer(text):
        face = "I" if span["link"] else "B"
        parts += [escape(text[end : span.start()]), f"\\f{face}{escape(_inner(span))}\\fR"]
        end = span.end()
    return "".join([*parts, escape(text[end:])])


def _inner(span: re.Match[str]) -> str:
    text: str = next(filter(None, span.groups()))
    return text.replace("`", "")
