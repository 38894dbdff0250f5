"""Creates the record's tables in an empty database, then the institution that the clinicians work for.

It runs once, when the machines are built, over the database's local socket. The institution's picture is what the
readiness probe asks for: to answer it, the server must have loaded its models and read the database.
"""

import base64
import io
import os
import runpy
import sys
from pathlib import Path

LIBRARY = Path("/opt/gnuhealth")
CONFIGURATION = Path("/root/trytond.conf")
DATABASE = "health"
INSTITUTION = "Hospital Demo"


def configure(role: str, secret: str) -> None:
    CONFIGURATION.write_text(f"[database]\nuri = postgresql://{role}:{secret}@/\n", encoding="utf-8")
    os.environ["TRYTOND_CONFIG"] = str(CONFIGURATION)
    os.environ["PGHOST"] = "/run/postgresql"


def create_tables() -> None:
    """What `trytond-admin` does for a new database, with the health module and all that it depends on."""
    admin = str(LIBRARY / "bin" / "trytond-admin")
    sys.argv = [admin, "-c", str(CONFIGURATION), "-d", DATABASE, "-u", "health", "--activate-dependencies"]
    sys.argv += ["--email", "admin@hospital.example", "-vv"]
    runpy.run_path(admin, run_name="__main__")


def create_institution(badge: str) -> None:
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    from trytond.pool import Pool  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from trytond.transaction import Transaction  # type: ignore[import-not-found,import-untyped,unused-ignore]

    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 102, 153)).save(picture, format="png")
    pool = Pool(DATABASE)
    with Transaction().start(DATABASE, 1, context={"active_test": False}) as transaction:
        party_model, avatar_model = pool.get("party.party"), pool.get("ir.avatar")
        (party,) = party_model.create([{"name": INSTITUTION, "is_institution": True, "fed_country": ""}])
        values = {"resource": str(party), "uuid": badge, "image": picture.getvalue()}
        avatar_model.create([values])
        transaction.commit()
    with Transaction().start(DATABASE, 0) as transaction:
        (avatar,) = pool.get("ir.avatar").search([("uuid", "=", badge)])
        avatar.get(64)
        transaction.commit()
    where = base64.urlsafe_b64encode(DATABASE.encode()).decode()
    sys.stderr.write(f"the institution's picture answers at /avatar/{where}/{badge}\n")


def main() -> None:
    role, secret, badge = sys.argv[1:]
    sys.path.insert(0, str(LIBRARY))
    configure(role, secret)
    create_tables()
    create_institution(badge)
    CONFIGURATION.unlink()


if __name__ == "__main__":
    main()
