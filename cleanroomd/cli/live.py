"""The status on a terminal, drawn anew as it changes and as time passes."""

import asyncio
import signal
import time
from contextlib import aclosing
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cleanroomd.cli.output import columns
from cleanroomd.cli.render import Mood, status_lines
from cleanroomd.control.client import Client
from cleanroomd.model.status import Status

_TICK = 1.0
"""Seconds; the clocks on the screen show whole ones."""

_STYLES = {Mood.PLAIN: "", Mood.GOOD: "green", Mood.BUSY: "yellow", Mood.BAD: "red"}


async def show_live(client: Client) -> None:
    """Until interrupted or terminated, either of which leaves the terminal as it was."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    async with aclosing(client.watch()) as statuses:
        current = await anext(statuses)
        with Live(console=Console(), auto_refresh=False, transient=False) as live:
            following = asyncio.ensure_future(anext(statuses))
            try:
                received = time.monotonic()
                while True:
                    live.update(_picture(current, time.monotonic() - received), refresh=True)
                    done, _ = await asyncio.wait((following,), timeout=_TICK)
                    if done:
                        current, received = following.result(), time.monotonic()
                        following = asyncio.ensure_future(anext(statuses))
            finally:
                following.cancel()
                await asyncio.wait((following,))


def _picture(status: Status, age: float) -> Text:
    aged = replace(
        status,
        now=status.now + age,
        remaining=None if status.remaining is None else max(0.0, status.remaining - age),
    )
    lines = (Text(line.text, style=_STYLES[line.mood]) for line in status_lines(aged, columns=columns()))
    return Text("\n").join(lines)
