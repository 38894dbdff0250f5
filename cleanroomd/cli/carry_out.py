"""Asks the daemon for something and, unless told not to, waits for what becomes of it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, TypeVar

import click

from cleanroomd.cli.documents import Answer
from cleanroomd.cli.outcome import (
    SETTLE,
    CloseUplink,
    OpenUplink,
    Outcome,
    Request,
    Restore,
    Shutdown,
    Start,
    Stop,
    judge,
)
from cleanroomd.cli.output import print_json
from cleanroomd.cli.render import change_lines
from cleanroomd.cli.text import clean
from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError, Exit
from cleanroomd.model.status import Status

F = TypeVar("F", bound=Callable[..., Any])


def wait_option(function: F) -> F:
    """`--no-wait`, as the parameter `wait`."""
    option = click.option(
        "--wait/--no-wait", default=True, help="Wait for the outcome (the default), or only ask for it."
    )
    return option(function)


def carry_out(path: str, request: Request, *, wait: bool, as_json: bool) -> Exit:
    """Progress goes to stderr, the outcome to stdout; ControlError when it is that it cannot be done."""
    return asyncio.run(_carry_out(Client(path), request, wait=wait, as_json=as_json))


async def _carry_out(client: Client, request: Request, *, wait: bool, as_json: bool) -> Exit:
    if not wait:
        answer = await _ask(client, request)
        _tell(answer, None, as_json=as_json)
        return Exit.DONE
    async with aclosing(client.watch()) as statuses:
        before = await anext(statuses)
        answer = await _ask(client, request)
        click.echo(clean(answer), err=True)
        outcome, last = await _follow(statuses, request, before)
    if outcome.exit is Exit.CANNOT:
        raise ControlError(outcome.text, last.next_action)
    _tell(answer, outcome, as_json=as_json)
    return outcome.exit


async def _ask(client: Client, request: Request) -> str:
    match request:
        case Start(service):
            return await client.start(service)
        case Stop(service):
            return await client.stop(service)
        case Restore():
            return await client.restore()
        case Shutdown():
            return await client.shutdown()
        case OpenUplink(window, seconds, reason):
            return await client.open_uplink(window, seconds, reason)
        case CloseUplink(window):
            return await client.close_uplink(window)


async def _follow(statuses: Any, request: Request, before: Status) -> tuple[Outcome, Status]:
    """Judges every status as it comes, and the last one again once it has had time to settle."""
    asked = time.monotonic()
    current = before
    following = asyncio.ensure_future(anext(statuses))
    try:
        while True:
            waited = time.monotonic() - asked
            outcome = judge(request, before, current, waited=waited)
            if outcome is not None:
                return outcome, current
            patience = SETTLE - waited if waited < SETTLE else None
            done, _ = await asyncio.wait((following,), timeout=patience)
            if done:
                status: Status = following.result()
                for line in change_lines(current, status):
                    click.echo(line, err=True)
                current = status
                following = asyncio.ensure_future(anext(statuses))
    finally:
        following.cancel()
        await asyncio.wait((following,))


def _tell(answer: str, outcome: Outcome | None, *, as_json: bool) -> None:
    if as_json:
        print_json(Answer(answer, outcome.text if outcome else None))
    else:
        click.echo(outcome.text if outcome else clean(answer))
