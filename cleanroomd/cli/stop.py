"""`cleanroomctl stop`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.documents import Answer
from cleanroomd.cli.outcome import Stop
from cleanroomd.cli.output import json_option
from cleanroomd.cli.services import service_names
from cleanroomd.errors import Exit


@click.command()
@click.argument("service", shell_complete=service_names)
@wait_option
@json_option(Answer)
@click.pass_obj
def stop(path: str, *, service: str, wait: bool, as_json: bool) -> Exit:
    """Stop SERVICE, after what depends on it.

    Waits until it is down: each machine is asked to power down, and killed when the shutdown_timeout of its service
    is over. It stays stopped until `cleanroomctl start` or `cleanroomctl restore`.
    """
    return carry_out(path, Stop(service), wait=wait, as_json=as_json)
