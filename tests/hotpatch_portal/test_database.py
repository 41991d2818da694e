"""The options that each database session starts with."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import connection

from hotpatch_portal.settings import BASE_DIR


@pytest.mark.django_db
def test_the_setting_that_triggers_read_is_set_in_each_session() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('pgtrigger.ignore'), _pgtrigger_should_ignore('any')")
        assert cursor.fetchone() == ("{}", False)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", "-c pgtrigger.ignore={}"),
        ("?options=-c%20work_mem%3D8MB", "-c work_mem=8MB -c pgtrigger.ignore={}"),
    ],
)
def test_options_in_database_url_are_kept(asked: str, expected: str) -> None:
    script = "from hotpatch_portal import settings; print(settings.DATABASES['default']['OPTIONS']['options'])"
    environment = os.environ | {"DATABASE_URL": f"postgres://portal@127.0.0.1/portal{asked}", "SECRET_KEY": "k" * 60}
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=BASE_DIR, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == expected
