"""The options that each database session starts with."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.apps import apps
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


# Each index of all rows, and one of the same table that begins with its columns and holds all rows too.
_COVERED = """
SELECT few.indexrelid::regclass::text, more.indexrelid::regclass::text
FROM pg_index few
JOIN pg_class t ON t.oid = few.indrelid AND t.relname = ANY(%(tables)s)
JOIN pg_index more ON more.indrelid = few.indrelid AND more.indexrelid <> few.indexrelid
JOIN pg_class few_class ON few_class.oid = few.indexrelid
JOIN pg_class more_class ON more_class.oid = more.indexrelid AND more_class.relam = few_class.relam
WHERE NOT few.indisunique AND few.indpred IS NULL AND few.indexprs IS NULL AND more.indexprs IS NULL
  AND more.indpred IS NULL AND few.indnatts = few.indnkeyatts AND few.indnatts <= more.indnkeyatts
  AND (more.indkey::int2[])[0:few.indnkeyatts - 1] = (few.indkey::int2[])[0:few.indnkeyatts - 1]
  AND (more.indclass::oid[])[0:few.indnkeyatts - 1] = (few.indclass::oid[])[0:few.indnkeyatts - 1]
  AND (more.indoption::int2[])[0:few.indnkeyatts - 1] = (few.indoption::int2[])[0:few.indnkeyatts - 1]
"""


@pytest.mark.django_db
def test_no_index_is_covered_by_another() -> None:
    """Each change of a row writes to all indexes of its table: one that another replaces is paid for and not needed."""
    ours = {"vms", "updates", "people", "audit", "notifications", "arm_api"}
    models = [model._meta for model in apps.get_models()]
    tables = [model.db_table for model in models if model.app_label in ours and not model.proxy]
    assert len(tables) > 50
    with connection.cursor() as cursor:
        cursor.execute(_COVERED, {"tables": tables})
        assert cursor.fetchall() == []
