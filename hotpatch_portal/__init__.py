"""Composition root: settings, URLs, Celery, system checks, metrics and the one-command stack."""

from hotpatch_portal.celery import app as celery_app

__all__ = ["celery_app"]
