"""`scripts/bench NAME [--json]`: run one benchmark, a figure a line."""

import argparse
import importlib
import sys

from cleanroomd.errors import CleanroomError

NAMES = ("plan", "cli", "restore", "cycles", "isolation")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    try:
        for figure in importlib.import_module(f"rigs.bench.{options.name}").run():
            print(figure.to_json() if options.json else figure.to_line(), flush=True)
    except CleanroomError as error:
        print(f"{error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
