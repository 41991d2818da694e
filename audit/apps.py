"""The record of who did what, as a Django app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AuditConfig(AppConfig):
    """Tags, events, and the position up to which others have read them."""

    name = "audit"
    verbose_name = _("Activity")
