"""What a worker process is beside Celery's."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from celery.signals import celeryd_init
from django.conf import settings
from django.db.backends.postgresql.base import DatabaseWrapper

from updates.worker import YOUNG_OBJECTS, collect_seldom


@pytest.fixture
def garbage() -> Iterator[None]:
    """The collector as it was, afterwards."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_the_threads_of_a_worker_share_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery would close it under the timer's hands."""
    monkeypatch.setitem(settings.DATABASES["default"]["OPTIONS"], "pool", {"min_size": 1})
    assert DatabaseWrapper(settings.DATABASES["default"], "of-a-worker").pool is not None
    celeryd_init.send(sender="worker@here", instance=None, conf=None, options={})
    assert DatabaseWrapper(settings.DATABASES["default"], "of-a-worker").pool is None


def test_a_worker_looks_for_garbage_seldom(garbage: None) -> None:
    collect_seldom()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    assert gc.get_freeze_count() > 0
