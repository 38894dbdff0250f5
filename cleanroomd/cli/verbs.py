"""The verbs of `cleanroomctl`, and how each of them ends."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from cleanroomd import __version__
from cleanroomd.cli.output import INTERRUPTED, READER_LEFT, print_error
from cleanroomd.errors import CleanroomError, Exit

DEFAULT_SOCKET = "/run/cleanroom/control"

_VERBS: Mapping[str, str] = {
    "status": "cleanroomd.cli.status:status",
    "start": "cleanroomd.cli.start:start",
    "stop": "cleanroomd.cli.stop:stop",
    "restore": "cleanroomd.cli.restore:restore",
    "shutdown": "cleanroomd.cli.shutdown:shutdown",
    "uplink": "cleanroomd.cli.uplink:uplink",
    "isolation": "cleanroomd.cli.isolation:isolation_group",
    "log": "cleanroomd.cli.log:log",
    "plan": "cleanroomd.cli.plan:plan_group",
}


class Verbs(click.Group):
    """Imports a verb when it is called, and turns how it ended into the exit code."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, _, name = _VERBS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """click suggests what was meant only from commands that it has loaded."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # which only mistakes need

            for near in difflib.get_close_matches(args[0], _VERBS, n=1):
                raise click.UsageError(f"{error.message} Did you mean '{near}'?", ctx) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except CleanroomError as error:
            print_error(error)
            result = Exit.CANNOT
        except KeyboardInterrupt:
            result = INTERRUPTED
        except BrokenPipeError:
            # What is still buffered for the reader that left must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            result = READER_LEFT
        ctx.exit(result if isinstance(result, int) else Exit.DONE)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--socket",
    type=click.Path(),
    envvar="CLEANROOM_CONTROL",
    default=DEFAULT_SOCKET,
    show_default=True,
    show_envvar=True,
    help="Where cleanroomd answers.",
)
@click.pass_context
def cli(context: click.Context, socket: str) -> None:
    """See and steer a recovery enclosure.

    Begin with `cleanroomctl status`: it says what works, what does not yet and why, and what to do next.

    Exit codes: 0 done, 1 cannot, 2 wrong usage, 3 degraded.
    """
    context.obj = socket
