"""The process of the command `cleanroomctl`."""

import atexit
import gc
import io
import sys


def main() -> None:
    # None of what is imported is garbage before the end: looking for some in it, at exit above all, would take a
    # fifth of the time of a short verb.
    gc.disable()
    from cleanroomd.cli.verbs import cli

    gc.enable()
    gc.freeze()
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the locale cannot print is no reason to fail.
            stream.reconfigure(errors="replace")
    cli(prog_name="cleanroomctl")


if __name__ == "__main__":
    main()
