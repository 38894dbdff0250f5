"""`cleanroomctl log`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import click

from cleanroomd.cli.output import json_option, print_json
from cleanroomd.cli.render import entry_line
from cleanroomd.cli.services import service_names
from cleanroomd.control.client import Client, JournalEntry
from cleanroomd.errors import Exit

_LINES_BEFORE_FOLLOWING = 10
"""As `journalctl --follow` and `tail --follow` show."""
_LONGEST_NUMBER = 9
"""Digits; no journal has more entries."""


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on as entries are written, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    metavar="N",
    help=f"""Begin with the last N entries, or "all". [default: all; {_LINES_BEFORE_FOLLOWING} with --follow]""",
)
@click.option("--service", metavar="SERVICE", shell_complete=service_names, help="Only what is about this service.")
@json_option(JournalEntry)
@click.pass_obj
def log(path: str, *, follow: bool, lines: str | None, service: str | None, as_json: bool) -> Exit:
    """Show what happened and why, from the run journal.

    With --json each line is one JSON object.
    """
    journal = Client(path).journal(follow=follow, last=_last(lines, follow=follow), service=service)
    asyncio.run(_print(journal, as_json=as_json))
    return Exit.DONE


def _last(lines: str | None, *, follow: bool) -> int | None:
    """How many entries to begin with, None for all."""
    if lines is None:
        return _LINES_BEFORE_FOLLOWING if follow else None
    if lines == "all":
        return None
    if not lines.isdecimal() or len(lines) > _LONGEST_NUMBER:
        raise click.BadParameter(
            f'{lines!r} is no number of entries; give for example 20, or "all".', param_hint="--lines"
        )
    return int(lines)


async def _print(journal: AsyncGenerator[JournalEntry, None], *, as_json: bool) -> None:
    async with aclosing(journal) as entries:
        async for entry in entries:
            if as_json:
                print_json(entry)
            else:
                click.echo(entry_line(entry))
