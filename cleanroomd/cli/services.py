"""Service names, completed by the shell."""

import click

from cleanroomd.control.client.once import read_status
from cleanroomd.errors import ControlError
from cleanroomd.model.status import Status

_PATIENCE = 1.0
"""Seconds that somebody who presses Tab is kept waiting."""


def service_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the plan that begin so; none when the daemon cannot be asked."""
    status = completed_status(context)
    services = status.services if status else ()
    return [service.name for service in services if service.name.startswith(incomplete)]


def completed_status(context: click.Context) -> Status | None:
    """What names are completed from; None when the daemon cannot be asked."""
    try:
        return read_status(context.find_root().params["socket"], patience=_PATIENCE)
    except ControlError:
        return None
