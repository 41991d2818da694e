"""App configuration of the updates."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class UpdatesConfig(AppConfig):
    """What we do to VMs: assess, install, keep the history."""

    name = "updates"
    verbose_name = _("Updates")
