"""Verbs and options of the programs, from what their own --help is made of."""

import argparse
from collections.abc import Iterator
from typing import Any

import click

from cleanroomd import daemon
from cleanroomd.cli import output
from cleanroomd.cli.output import INTERRUPTED, READER_LEFT, JsonOption
from cleanroomd.cli.verbs import cli
from cleanroomd.errors import Exit
from cleanroomd.keeper import __main__ as keeper
from rigs.reference.markdown import bullets, code, doc_of, page, paragraph, prose

_NO_BREAK = "\u00a0"
_SIGNALS = {
    "SIGHUP": "It reads the plan again, as `systemctl reload cleanroomd` asks. One that cannot be used changes "
    "nothing; the status says why.",
    "SIGTERM, SIGINT": "It ends. Every machine outlives it, and the next daemon adopts it.",
}
"""Of the daemon."""


def cleanroomctl() -> str:
    program = top(cli, "cleanroomctl")
    return page(
        "cleanroomctl",
        "cleanroomd/cli/",
        *_command(program),
        "## Exit codes",
        bullets(f"**{number}**: {meaning}" for number, meaning in exits().items()),
        paragraph(
            "What cannot be done is said on standard error: a line that begins with `cannot`, and below it what to do "
            "next. With `--json` it is a JSON object on standard output instead; [What `--json` prints](json.md) has "
            "every such object field by field."
        ),
        *(part for verb in verbs(program) for part in (f"## {verb.command_path}", *_command(verb))),
    )


def cleanroomd() -> str:
    return page(
        "cleanroomd",
        "cleanroomd/daemon.py and cleanroomd/keeper/__main__.py",
        *_command(top(daemon.main, "cleanroomd")),
        "## Signals",
        daemon_signals(),
        "## Exit codes of the daemon",
        daemon_exits(),
        "## The keeper",
        *keeper_parts(),
    )


def daemon_signals() -> str:
    return bullets(f"**{names}**: {what}" for names, what in _SIGNALS.items())


def daemon_exits() -> str:
    return bullets(
        [
            f"**{Exit.DONE:d}**: It ended as it was told to.",
            f"**{Exit.CANNOT:d}**: It could not start; the message says why, and what to do next.",
            f"**{Exit.USAGE:d}**: {doc_of(Exit, Exit.USAGE.name)}",
        ]
    )


def top(command: click.Command, name: str) -> click.Context:
    """What every other context of the program is within."""
    return click.Context(command, info_name=name, **command.context_settings)


def verbs(context: click.Context) -> Iterator[click.Context]:
    """Every verb below, in the order of the help; one that only holds others comes before them."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            verb = click.Context(command, info_name=name, parent=context)
            yield verb
            yield from verbs(verb)


def document_of(command: click.Command) -> type[Any] | None:
    """The type of what it prints with --json, if it has that."""
    options = (parameter for parameter in command.params if isinstance(parameter, JsonOption))
    return next((option.document for option in options), None)


def exits() -> dict[int, str]:
    """Exit code of `cleanroomctl` -> what it means."""
    return {
        **{int(code): doc_of(Exit, code.name) for code in Exit},
        INTERRUPTED: doc_of(output, "INTERRUPTED"),
        READER_LEFT: doc_of(output, "READER_LEFT"),
    }


def synopsis(context: click.Context) -> str:
    """The command with all its options, as git's and systemd's pages have it; Markdown, broken between options only."""
    words = [f"**{context.command_path}**"]
    for parameter in context.command.params:
        if isinstance(parameter, click.Option):
            longest = max(parameter.opts, key=len)
            both = "|".join([longest, *parameter.secondary_opts])
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            words.append(f"{both}{value}" if parameter.required else f"[{both}{value}]")
        else:
            words.append(parameter.make_metavar(context))
    if isinstance(context.command, click.Group):
        words.append("COMMAND ...")
    return " ".join(word.replace(" ", _NO_BREAK) for word in words)


def options(context: click.Context) -> str:
    command = context.command
    shown = command.get_params(context) if context.parent is None else command.params
    records = (parameter.get_help_record(context) for parameter in shown)
    # Arguments have a record without help where click gives them one at all; the usage and the help name them.
    return bullets(f"`{record[0]}`: {record[1]}" for record in records if record and record[1])


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield code(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    yield prose(command.help)
    yield options(context)


def keeper_parts() -> Iterator[str]:
    """How it is called, what it does, and its options."""
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
