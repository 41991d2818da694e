"""The Celery application: the clock and the muscle. The database is the queue."""

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")

app = Celery("hotpatch_portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_init.connect
@beat_init.connect
def refuse_newer_database(**_signal: Any) -> None:
    """Neither a worker nor beat touches a database of a newer portal."""
    from hotpatch_portal.schema import refuse_newer_database as refuse

    refuse()


@celeryd_init.connect
def count_for_metrics(**_signal: Any) -> None:
    """A worker and its forks count what they do; beat does nothing that counts."""
    from django.conf import settings

    from hotpatch_portal.counting import start_counting

    start_counting(settings.PORTAL_DIR)
