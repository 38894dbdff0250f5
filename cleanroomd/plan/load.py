"""Reading a plan: from untrusted bytes to the model, or to every problem at once."""

import gc
import hashlib
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from cleanroomd.errors import CleanroomError
from cleanroomd.model.plan import Plan
from cleanroomd.plan.build import build
from cleanroomd.plan.crosscheck import cross_findings
from cleanroomd.plan.drafts import draft
from cleanroomd.plan.problems import Finding, PlanError, Problem, path, printable
from cleanroomd.plan.schema import PlanFile
from cleanroomd.plan.wording import schema_findings

LARGEST = 16 << 20
"""Bytes; a plan of 10,000 services has about 4 MiB."""

_BOM = b"\xef\xbb\xbf"
_KEY_PARTS = 64
_LONG_KEY = re.compile(rb"""(?:\.[ \t]*(?:[A-Za-z0-9_-]{1,64}|"[^"\n]{0,64}"|'[^'\n]{0,64}')[ \t]*){%d}""" % _KEY_PARTS)
"""tomllib takes time in the square of the parts of a dotted key: minutes for a line of 100 kB."""
_TOML_POSITION = re.compile(r"(?s)(.*) \(at (?:line (\d+), column (\d+)|end of document)\)")


def load(file: Path) -> Plan:
    """The plan in a file. PlanError when it has problems, CleanroomError when it cannot be read."""
    # A file name need not be UTF-8; messages about it are.
    source = os.fsencode(file).decode(errors="replace")
    try:
        with file.open("rb") as opened:
            # One byte more shows that there are too many, without reading what may be endless.
            untrusted_text = opened.read(LARGEST + 1)
    except FileNotFoundError:
        raise CleanroomError(
            f"cannot read the plan {source}: there is no such file", "give the path of a plan file (TOML)"
        ) from None
    except (OSError, ValueError) as failure:
        # ValueError: a path with a NUL character.
        cause = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
        raise CleanroomError(
            f"cannot read the plan {source}: {cause}", "check the path and who may read the file"
        ) from failure
    return parse(untrusted_text, source=source)


def parse(untrusted_text: bytes, *, source: str) -> Plan:
    """The plan that the bytes of a file spell; PlanError, with every problem, when they spell none.

    `source` is what messages call the file.
    """
    with _collector_paused():
        return _parse(untrusted_text, source)


def _parse(untrusted_text: bytes, source: str) -> Plan:
    digest = hashlib.sha256(untrusted_text).hexdigest()
    text = untrusted_text.removeprefix(_BOM)
    document = _document(text, source)
    findings = cross_findings(draft(document))
    try:
        file = PlanFile.model_validate(document)
    except ValidationError as failure:
        raise PlanError(source, _located([*schema_findings(failure), *findings], document, text)) from None
    if findings:
        raise PlanError(source, _located(findings, document, text))
    return build(file, digest)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of objects are made and none of them is garbage; the collector's visits would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _document(text: bytes, source: str) -> dict[str, object]:
    if len(text) > LARGEST:
        raise _unreadable(
            source, None, f"the file has more than {LARGEST >> 20} MiB, which no plan needs; is it a plan?"
        )
    if deep := _LONG_KEY.search(text):
        message = f"a key has more than {_KEY_PARTS} parts, nested too deeply; no key of a plan has more than 3"
        raise _unreadable(source, text.count(b"\n", 0, deep.start()) + 1, message)
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as failure:
        line = text.count(b"\n", 0, failure.start) + 1
        byte = text[failure.start]
        raise _unreadable(source, line, f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 text") from None
    except RecursionError:
        raise _unreadable(
            source,
            None,
            "lists or tables are nested too deeply; the deepest in a plan is a table in a list in a table",
        ) from None
    except ValueError as failure:
        # Beside TOMLDecodeError: integers of more than 4300 digits, dates that no calendar has.
        raise _syntax(source, text, failure) from None


def _syntax(source: str, text: bytes, failure: ValueError) -> PlanError:
    found = _TOML_POSITION.fullmatch(str(failure))
    if not found:
        return _unreadable(source, None, f"is not TOML: {printable(str(failure))}; correct that value")
    cause, line, column = found.groups()
    if line is None:
        end = text.rstrip(b"\r\n").count(b"\n") + 1
        return _unreadable(source, end, f"is not TOML: {cause}, at the end of the file; complete it")
    return _unreadable(source, int(line), f"is not TOML: {cause}, at column {column}; correct what stands there")


def _unreadable(source: str, line: int | None, message: str) -> PlanError:
    return PlanError(source, [Problem("", line, message)])


def _located(findings: list[Finding], document: dict[str, object], text: bytes) -> list[Problem]:
    """The findings with their lines, in the order of the file; what has no line comes first."""
    # Only files with problems pay for the second parser.
    from cleanroomd.plan.lines import Lines

    lines = Lines(text)
    problems = []
    for finding in findings:
        loc, shown = path(document, finding.loc)
        spot = path(document, finding.spot)[0] if finding.spot else loc
        problems.append(Problem(shown, lines.line(spot), finding.message))
    return sorted(problems, key=lambda problem: problem.line or 0)
