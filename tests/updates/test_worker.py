"""What a worker process is beside Celery's."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from celery.signals import celeryd_init, task_postrun, task_prerun
from django.conf import settings
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper

from hotpatch_portal.celery import app
from updates.tasks import sweep
from updates.worker import CONNECTION_SECONDS, YOUNG_OBJECTS, collect_seldom


@pytest.fixture
def garbage() -> Iterator[None]:
    """The collector as it was, afterwards."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection has the settings of a web process. What an earlier test opened without a pool is closed first."""
    connection.close()
    monkeypatch.setitem(settings.DATABASES["default"]["OPTIONS"], "pool", {"min_size": 1})
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", 0)


def test_the_threads_of_a_worker_share_no_pool(pooled: None) -> None:
    """Celery would close it under the timer's hands."""
    assert DatabaseWrapper(settings.DATABASES["default"], "of-a-worker").pool is not None
    celeryd_init.send(sender="worker@here", instance=None, conf=None, options={})
    assert DatabaseWrapper(settings.DATABASES["default"], "of-a-worker").pool is None


def test_a_connection_outlives_the_task_and_is_looked_at_before_the_next(
    pooled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery does not close it; `updates.worker` does when it is too old, and Django tests it before it is used again."""
    celeryd_init.send(sender="worker@here", instance=None, conf=None, options={})
    assert settings.DATABASES["default"]["CONN_MAX_AGE"] == CONNECTION_SECONDS
    assert settings.DATABASES["default"]["CONN_HEALTH_CHECKS"]
    assert connection.connection is None, "a fork would inherit it"
    assert app.conf.get("CELERY_DB_REUSE_MAX"), "Celery reads it before it closes connections around a task"
    looked_at: list[None] = []
    monkeypatch.setattr("updates.worker.close_old_connections", lambda: looked_at.append(None))
    task_prerun.send(sender=sweep, task=sweep)
    task_postrun.send(sender=sweep, task=sweep)
    assert len(looked_at) == 2


def test_a_worker_looks_for_garbage_seldom(garbage: None) -> None:
    collect_seldom()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    assert gc.get_freeze_count() > 0
