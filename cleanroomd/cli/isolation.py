"""`cleanroomctl isolation`."""

import asyncio

import click

from cleanroomd.cli.output import columns, json_option, print_json, print_lines
from cleanroomd.cli.render_isolation import verification_lines, view_lines
from cleanroomd.control.client import Client
from cleanroomd.errors import Exit
from cleanroomd.model.lesson import Lesson
from cleanroomd.model.verification import IsolationView, Verification
from cleanroomd.restore.learning import as_toml


@click.group("isolation")
def isolation_group() -> None:
    """See who may talk to whom, and prove that the kernel keeps to it."""


@isolation_group.command("show")
@json_option(IsolationView)
@click.pass_obj
def show(path: str, *, as_json: bool) -> None:
    """Say who may talk to whom at this moment, and what was denied.

    Whatever is not listed may not pass: everything is dropped unless the plan says otherwise.
    """
    view = asyncio.run(Client(path).isolation())
    if as_json:
        print_json(view)
    else:
        print_lines(list(view_lines(view, columns=columns())))


@isolation_group.command("learn")
@json_option(Lesson)
@click.pass_obj
def learn(path: str, *, as_json: bool) -> None:
    """Propose flows from what was denied lately; nothing is applied.

    For staging, when the machines first run as they will: prints [[flow]] entries for the plan, with the names of zones
    and services, the most frequent first. Read each one, for some of it should stay denied. The daemon must run with
    --unsealed; it remembers some thousand connections, each for an hour.
    """
    lesson = asyncio.run(Client(path).learn())
    if as_json:
        print_json(lesson)
    else:
        click.echo("\n".join(as_toml(lesson)))


@isolation_group.command("verify")
@json_option(Verification)
@click.pass_obj
def verify(path: str, *, as_json: bool) -> Exit:
    """Prove the isolation on the live kernel.

    Compares the rules in the kernel with the plan, then sends allowed and forbidden packets between every two
    endpoints through a twin that is made from the rules as the kernel has them. Nothing live is touched. The exit
    code is 1 when anything differs, when a packet fared otherwise than the plan says, and when it cannot be verified.
    """
    verification = asyncio.run(Client(path).verify_isolation())
    if as_json:
        print_json(verification)
    else:
        print_lines(list(verification_lines(verification, columns=columns())))
    return Exit.DONE if verification.ok else Exit.CANNOT
