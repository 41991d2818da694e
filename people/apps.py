"""People as a Django app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PeopleConfig(AppConfig):
    """Preferences, sessions, sign-in, and who did what."""

    name = "people"
    verbose_name = _("People")
