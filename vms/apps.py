"""App configuration of the inventory."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from db.lookups import register_lookups


class VmsConfig(AppConfig):
    """What we own: VMs and how they are reached."""

    name = "vms"
    verbose_name = _("Virtual machines")

    def ready(self) -> None:
        """Queries here and on the floors above ask by arrays; pages show our words."""
        from vms.badges import register_badges

        register_lookups()
        register_badges()
