"""`cleanroomctl status --watch`: on a terminal one picture, elsewhere one status after the other."""

import asyncio
import sys
from contextlib import aclosing

import click

from cleanroomd.cli.output import print_json, print_lines
from cleanroomd.cli.render import status_lines
from cleanroomd.control.client import Client


def watch_status(path: str, *, as_json: bool) -> None:
    """Until interrupted."""
    asyncio.run(_watch(Client(path), as_json=as_json))


async def _watch(client: Client, *, as_json: bool) -> None:
    if sys.stdout.isatty() and not as_json:
        from cleanroomd.cli.live import show_live

        await show_live(client)
        return
    async with aclosing(client.watch()) as statuses:
        async for current in statuses:
            if as_json:
                print_json(current)
            else:
                print_lines(status_lines(current))
                click.echo()
