"""The Celery application: the clock and the muscle. The database is the queue."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")

app = Celery("hotpatch_portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
