"""Starts the record's server once its database answers, however late that is.

Tryton loads its models from the database when it starts; asked too early it would serve without them. Waiting in the
process that will serve spares a second start of the interpreter and keeps the console quiet.
"""

import logging
import runpy
import sys
import time
from pathlib import Path

CONFIGURATION = "/etc/trytond.conf"
LIBRARY = Path("/opt/gnuhealth")
DATABASE = "health"
log = logging.getLogger(__name__)


def wait_for_database() -> None:
    """Return when the database has accepted a session; it may take for ever, each try at most three seconds."""
    import psycopg2  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from trytond.config import config  # type: ignore[import-not-found,import-untyped,unused-ignore]

    config.update_etc([CONFIGURATION])
    address = config.get("database", "uri") + DATABASE
    reported = ""
    while True:
        try:
            psycopg2.connect(address, connect_timeout=3).close()
        except psycopg2.OperationalError as error:
            if str(error) != reported:
                reported = str(error)
                log.warning("waiting for the database: %s", reported)
            time.sleep(0.5)
        else:
            return


def main() -> None:
    """Wait, then become `trytond`: it never returns."""
    sys.path.insert(0, str(LIBRARY))
    wait_for_database()
    server = str(LIBRARY / "bin" / "trytond")
    sys.argv = [server, "-c", CONFIGURATION, "-d", DATABASE]
    runpy.run_path(server, run_name="__main__")


if __name__ == "__main__":
    main()
