"""App configuration of the inventory."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class VmsConfig(AppConfig):
    """What we own: VMs and how they are reached."""

    name = "vms"
    verbose_name = _("Virtual machines")
