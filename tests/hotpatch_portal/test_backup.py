"""The database as a file and back, with the portal running and stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from hotpatch_portal.stack.embedded import EmbeddedPostgres
from tests.factories import UserFactory
from tests.hotpatch_portal.conftest import CLEAN, ROOT

pytestmark = pytest.mark.stack


def backup(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command of a portal that is stopped."""
    return subprocess.run(
        [sys.executable, "manage.py", "backup", *arguments],
        cwd=ROOT, env=CLEAN | {"PORTAL_DIR": str(directory)}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_a_backup_comes_back_whole(place: Path) -> None:
    UserFactory(username="kept")
    file = place / "portal.dump"
    call_command("backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="is there already"):
        call_command("backup", str(file))
    with pytest.raises(CommandError, match="has tables already"):
        call_command("backup", str(file), restore=True)

    restored = backup(place / "p", "--restore", str(file))
    assert restored.returncode == 0, restored.stderr
    again = backup(place / "p", "--restore", str(file))
    assert again.returncode == 1
    assert "has tables already" in again.stderr
    assert backup(place / "p", str(place / "second.dump")).returncode == 0, "of a portal that is stopped"

    postgres = EmbeddedPostgres(place / "p")
    postgres.start()
    try:
        with psycopg.connect(postgres.url) as connection:
            names = connection.execute("SELECT username FROM auth_user").fetchall()
            (counted,) = connection.execute("SELECT count(*) FROM django_migrations").fetchone() or (0,)
    finally:
        postgres.stop()
    assert ("kept",) in names
    assert counted > 50


def test_what_is_no_backup_is_one_sentence(place: Path) -> None:
    done = backup(place / "p", "--restore", str(place / "none"))
    assert (done.returncode, done.stderr.strip()) == (1, f"CommandError: {place / 'none'} is no file.")
    (place / "text").write_text("no backup")
    done = backup(place / "p", "--restore", str(place / "text"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pg_restore failed" in done.stderr
    assert not list(place.glob("p/.*unfinished"))
