"""python -m cleanroomd.keeper --socket PATH [--ready-fd N]"""

import argparse
import os
import socket
import sys
from pathlib import Path

from cleanroomd.errors import Exit, IsolationError
from cleanroomd.keeper.server import place, serve, stop_signals, taken_over


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cleanroomd.keeper", description="Own the rule tables.")
    parser.add_argument("--socket", type=Path, required=True, help="where daemons get their copy")
    parser.add_argument("--ready-fd", type=int, help="descriptor for a line once the tables are owned")
    arguments = parser.parse_args()
    try:
        with stop_signals() as stop, place(arguments.socket) as listener:
            owning = taken_over(listener, stop)
            if owning is not None:
                with owning:
                    _announce(arguments.ready_fd)
                    serve(listener, owning, stop)
    except IsolationError as error:
        print("\n  ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return Exit.CANNOT
    except OSError as error:
        print(f"cannot keep the rule tables: {error}", file=sys.stderr)
        return Exit.CANNOT
    return Exit.DONE


def _announce(ready_fd: int | None) -> None:
    """Tell whoever started us, in each way it asked for: a line, or sd_notify(3)'s datagram."""
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as ready:
            ready.write("READY\n")
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        abstract = "\0" + address[1:] if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1\nSTATUS=The rule tables are owned", abstract)


if __name__ == "__main__":
    sys.exit(main())
