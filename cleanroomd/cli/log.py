"""`cleanroomctl log`."""

import asyncio
from contextlib import aclosing

import click

from cleanroomd.cli.output import json_option, print_json
from cleanroomd.cli.render import entry_line
from cleanroomd.control.client import Client
from cleanroomd.errors import Exit


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on as entries are written, until Ctrl-C.")
@json_option
@click.pass_obj
def log(path: str, *, follow: bool, as_json: bool) -> Exit:
    """Show what happened and why, from the run journal.

    With --json each line is one JSON object.
    """
    asyncio.run(_print(Client(path), follow=follow, as_json=as_json))
    return Exit.DONE


async def _print(client: Client, *, follow: bool, as_json: bool) -> None:
    async with aclosing(client.journal(follow=follow)) as entries:
        async for entry in entries:
            if as_json:
                print_json(entry)
            else:
                click.echo(entry_line(entry))
