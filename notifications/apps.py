"""What people are told outside of the pages, as a Django app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NotificationsConfig(AppConfig):
    """Mail about what waits for a person, fed by the record of acts."""

    name = "notifications"
    verbose_name = _("Notifications")
