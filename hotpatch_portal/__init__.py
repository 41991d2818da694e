"""Composition root: settings, URLs, Celery, system checks, the one-command stack and the demo."""

from hotpatch_portal.celery import app as celery_app

__all__ = ["celery_app"]
