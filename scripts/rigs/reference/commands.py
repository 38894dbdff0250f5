"""Verbs and options of the programs, from what their own --help is made of."""

import argparse
from collections.abc import Iterator
from typing import Any

import click

from cleanroomd import daemon
from cleanroomd.cli import output
from cleanroomd.cli.output import INTERRUPTED, READER_LEFT
from cleanroomd.cli.verbs import cli
from cleanroomd.errors import Exit
from cleanroomd.keeper import __main__ as keeper
from rigs.reference.markdown import bullets, code, doc_of, page, paragraph, prose


def cleanroomctl() -> str:
    top = _top(cli, "cleanroomctl")
    exits = {
        **{int(code): doc_of(Exit, code.name) for code in Exit},
        INTERRUPTED: doc_of(output, "INTERRUPTED"),
        READER_LEFT: doc_of(output, "READER_LEFT"),
    }
    return page(
        "cleanroomctl",
        "cleanroomd/cli/",
        *_command(top),
        "## Exit codes",
        bullets(f"**{number}**: {meaning}" for number, meaning in exits.items()),
        paragraph(
            "What cannot be done is said on standard error: a line that begins with `cannot`, and below it what to do "
            'next. With `--json` it is a JSON object on standard output instead: `{"error": ..., "hint": ...}`.'
        ),
        *(part for verb in _verbs(top) for part in (f"## {verb.command_path}", *_command(verb))),
    )


def cleanroomd() -> str:
    return page(
        "cleanroomd",
        "cleanroomd/daemon.py and cleanroomd/keeper/__main__.py",
        *_command(_top(daemon.main, "cleanroomd")),
        paragraph(f"The exit code is {Exit.DONE:d} after SIGTERM or SIGINT, {Exit.CANNOT:d} when the daemon cannot "
                  f"start, and {Exit.USAGE:d} when the command line is wrong. Every machine outlives the daemon."),
        "## The keeper",
        *_keeper(),
    )  # fmt: skip


def _top(command: click.Command, name: str) -> click.Context:
    return click.Context(command, info_name=name, **command.context_settings)


def _verbs(context: click.Context) -> Iterator[click.Context]:
    """Every verb below, in the order of the help; one that only holds others comes before them."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            verb = click.Context(command, info_name=name, parent=context)
            yield verb
            yield from _verbs(verb)


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield code(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    yield prose(command.help)
    shown = command.get_params(context) if context.parent is None else command.params
    records = (parameter.get_help_record(context) for parameter in shown)
    # Arguments have a record without help where click gives them one at all; the usage and the help name them.
    yield bullets(f"`{record[0]}`: {record[1]}" for record in records if record and record[1])


def _keeper() -> Iterator[str]:
    parser = _Recorder(prog=keeper.PROG, description=keeper.DESCRIPTION, add_help=False)
    keeper.add_options(parser)
    yield code(f"{parser.prog} {' '.join(map(_usage, parser.options))}")
    yield paragraph(keeper.DESCRIPTION)
    yield bullets(
        f"`{option.option_strings[0]} {option.metavar}`: {option.help}{'  [required]' if option.required else ''}"
        for option in parser.options
    )


def _usage(option: argparse.Action) -> str:
    words = f"{option.option_strings[0]} {option.metavar}"
    return words if option.required else f"[{words}]"


class _Recorder(argparse.ArgumentParser):
    """Keeps what argparse gives no way to ask for: the options that were added."""

    def __init__(self, **values: Any) -> None:
        self.options: list[argparse.Action] = []
        super().__init__(**values)

    def add_argument(self, *names: Any, **values: Any) -> argparse.Action:
        action = super().add_argument(*names, **values)
        self.options.append(action)
        return action
