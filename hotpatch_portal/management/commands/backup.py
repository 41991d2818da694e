"""`manage.py backup FILE` and `manage.py backup --restore FILE`: the database as a file, with the programs that fit it."""

from __future__ import annotations

import os
import shutil
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import CommandError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import UndefinedTable
from psycopg.types.json import Jsonb

from audit.commands import SignedCommand
from audit.context import operating_system_user
from audit.tags import Door, Tag
from hotpatch_portal.stack.embedded import EMBEDDED_VERSION, EmbeddedPostgres, StackError, postgres_programs
from hotpatch_portal.stack.portal import hold


class Command(SignedCommand):
    """Write the database into a file (custom format of pg_dump), or put one back into an empty database."""

    help = "Write the whole database into FILE; --restore puts FILE into a database that has no tables yet."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the file and the direction."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--restore", action="store_true", help="put the file into the database")

    def handle(self, *_args: Any, file: Path, restore: bool, **_options: Any) -> None:
        """Work on the database of DATABASE_URL or of the running portal; else start the embedded one meanwhile."""
        if restore and not file.is_file():
            raise CommandError(f"{file} is no file.")
        if not restore and file.exists():
            raise CommandError(f"{file} is there already: name another file.")
        with ExitStack() as stack:
            try:
                where = stack.enter_context(_database())
            except (StackError, psycopg.OperationalError) as error:
                raise CommandError(str(error).strip().splitlines()[0]) from None
            if restore:
                self._restore(file, where)
            else:
                self._dump(file, where)

    def _dump(self, file: Path, where: Mapping[str, str]) -> None:
        unfinished = file.with_name(f".{file.name}.unfinished")
        try:
            unfinished.touch(mode=0o600)  # who can read it can read everything
            _run("pg_dump", where, "--format=custom", "--file", str(unfinished))
            unfinished.rename(file)
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error.strerror}.") from None
        finally:
            unfinished.unlink(missing_ok=True)
        _note(Tag.BACKUP_WRITE, file, where)
        self.stdout.write(f"The database is in {file} ({file.stat().st_size:,} bytes).")

    def _restore(self, file: Path, where: Mapping[str, str]) -> None:
        with psycopg.connect(make_conninfo(**where)) as connection:
            found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        if found and found[0]:
            raise CommandError("The database has tables already: restore into an empty one. Nothing was changed.")
        _run("pg_restore", where, "--no-owner", "--exit-on-error", "--single-transaction", str(file))
        _note(Tag.BACKUP_RESTORE, file, where)
        self.stdout.write(f"{file} was restored; the next `make up` brings it up to date.")


def _note(tag: Tag, file: Path, where: Mapping[str, str]) -> None:
    """Keep it in the database that it was done to, which may be another than Django's; an old one has no such table."""
    agent, detail = f"backup ({operating_system_user()})", Jsonb({"bytes": file.stat().st_size})
    with psycopg.connect(make_conninfo(**where)) as connection, suppress(UndefinedTable):
        connection.execute(
            "INSERT INTO public.audit_auditevent (tag, door, agent, object_name, detail) VALUES (%s, %s, %s, %s, %s)",
            [tag.value, Door.COMMAND.value, agent[:150], file.name[:200], detail],
        )


@contextmanager
def _database() -> Iterator[dict[str, str]]:
    """How to connect. Raises StackError or psycopg.OperationalError where there is nothing to connect to."""
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
        yield _answering(_settled())
        return
    try:
        where = _answering(_settled())
    except psycopg.OperationalError:  # no portal runs
        with hold(settings.PORTAL_DIR):
            postgres = EmbeddedPostgres(settings.PORTAL_DIR.resolve())
            postgres.start()
            try:
                yield {name: str(value) for name, value in conninfo_to_dict(postgres.url).items()}
            finally:
                postgres.stop()
        return
    yield where


def _settled() -> dict[str, str]:
    """What Django's settings say, in libpq's words."""
    database = settings.DATABASES["default"]
    given = {
        "dbname": database["NAME"], "user": database["USER"], "password": database["PASSWORD"], "host": database["HOST"],
        "port": database["PORT"], **database.get("OPTIONS", {}),
    }  # fmt: skip
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return {name: str(value) for name, value in given.items() if name in known and value not in {"", None}}


def _answering(where: dict[str, str]) -> dict[str, str]:
    psycopg.connect(make_conninfo(**where), connect_timeout=5).close()
    return where


def _run(program: str, where: Mapping[str, str], *arguments: str) -> None:
    """Run a program of PostgreSQL: for a server of another version that of the system, if it is there."""
    with psycopg.connect(make_conninfo(**where)) as connection:
        own = None if connection.info.server_version // 10_000 == EMBEDDED_VERSION else shutil.which(program)
    try:
        command = own or str(postgres_programs() / program)
    except StackError as error:
        raise CommandError(str(error)) from None
    public = {name: value for name, value in where.items() if name != "password"}  # ps shows arguments to everybody
    secret = {"PGPASSWORD": where["password"]} if "password" in where else {}
    done = subprocess.run(
        [command, f"--dbname={make_conninfo(**public)}", *arguments],
        env=os.environ | secret,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(f"{program} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}")
