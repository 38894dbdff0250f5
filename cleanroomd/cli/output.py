"""What goes to stdout and stderr, and how it ends."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import click

from cleanroomd.cli.render import COLUMNS, NARROWEST, Line, Mood
from cleanroomd.cli.text import clean
from cleanroomd.errors import CleanroomError

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130
"""Ended by Ctrl-C: 128 + SIGINT, as shells count."""
READER_LEFT = 141
"""Whoever read the output left before its end, as `head` does: 128 + SIGPIPE."""

_WIDEST = 120
_AS_JSON = "cleanroomd.cli.as_json"
_COLOURS = {Mood.GOOD: "green", Mood.BUSY: "yellow", Mood.BAD: "red"}


class JsonOption(click.Option):
    """`--json` of a command that prints `document`."""

    def __init__(self, *names: Any, document: type[Any], **values: Any) -> None:
        super().__init__(*names, **values)
        self.document = document


def json_option(document: type[Any]) -> Callable[[F], F]:
    """`--json`, as the parameter `as_json`; failures are then told in JSON as well.

    `document` is the dataclass of what the command prints then. The reference and the manual describe it, so its
    fields have texts below them, and only ever grow in number.
    """

    def remember(context: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001
        context.meta[_AS_JSON] = value
        return value

    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        cls=JsonOption,
        document=document,
        callback=remember,
        help="Print JSON, for programs.",
    )


def print_json(document: object) -> None:
    """One line, ASCII: no locale and no terminal can garble it."""
    plain = asdict(document) if is_dataclass(document) and not isinstance(document, type) else document
    click.echo(json.dumps(plain))


def print_lines(lines: list[Line]) -> None:
    """In colour when stdout is a terminal."""
    click.echo("\n".join(click.style(line.text, fg=_COLOURS.get(line.mood)) for line in lines))


def print_error(error: CleanroomError) -> None:
    """To stderr for people, or to stdout in JSON where that was asked for."""
    context = click.get_current_context()
    if context.meta.get(_AS_JSON, False):
        from cleanroomd.cli.documents import Failure

        print_json(Failure(error.message, error.hint))
        return
    click.echo(clean(error.message), err=True)
    if error.hint:
        click.echo(f"  {clean(error.hint)}", err=True)


def columns() -> int:
    """Of the terminal, within reason; COLUMNS where there is none."""
    if not sys.stdout.isatty():
        return COLUMNS
    import shutil  # which loads every compressor, for terminals only

    return min(max(shutil.get_terminal_size().columns, NARROWEST), _WIDEST)
