"""python -m cleanroomd.keeper --socket PATH [--ready-fd N]"""

import argparse
import os
import socket
import sys
from pathlib import Path

from cleanroomd.errors import Exit, IsolationError
from cleanroomd.keeper import store
from cleanroomd.keeper.deadline import Deadline
from cleanroomd.keeper.server import place, serve, stop_signals, taken_over
from cleanroomd.keeper.tables import owns_tables

PROG = "python -m cleanroomd.keeper"
DESCRIPTION = "Own the firewall's rule tables, so that they stay in force when the daemon ends."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        required=True,
        help="Where the daemon gets a copy of the tables' socket.",
    )
    parser.add_argument(
        "--ready-fd", metavar="NUMBER", type=int, help="Open descriptor that gets a line once the tables are owned."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog=PROG, description=DESCRIPTION)
    add_options(parser)
    arguments = parser.parse_args()
    try:
        with stop_signals() as stop, place(arguments.socket) as listener:
            closing = Deadline(arguments.socket.with_name(arguments.socket.name + ".deadline"))
            kept = _kept()
            owning = kept or taken_over(listener, stop, closing)
            if owning is not None:
                with owning:
                    if kept is None:
                        store.store(owning)
                    _announce(arguments.ready_fd)
                    serve(listener, owning, stop, closing)
    except IsolationError as error:
        print("\n  ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return Exit.CANNOT
    except OSError as error:
        print(f"cannot keep the rule tables: {error}", file=sys.stderr)
        return Exit.CANNOT
    return Exit.DONE


def _kept() -> socket.socket | None:
    """The owning socket from the service manager, which held it while there was no keeper."""
    kept = store.stored()
    if kept is None or owns_tables(kept):
        return kept
    kept.close()
    return None


def _announce(ready_fd: int | None) -> None:
    """Tell whoever started us, in each way it asked for: a line, or sd_notify(3)'s datagram."""
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as ready:
            ready.write("READY\n")
    store.notify("READY=1\nSTATUS=The rule tables are owned")


if __name__ == "__main__":
    sys.exit(main())
