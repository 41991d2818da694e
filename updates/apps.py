"""App configuration of the updates."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class UpdatesConfig(AppConfig):
    """What we do to VMs: assess, install, keep the history."""

    name = "updates"
    verbose_name = _("Updates")

    def ready(self) -> None:
        """Follow what happens to machines on the floor below, answer what its filters ask, let pages show our words."""
        from django.db.models import OuterRef, Subquery

        from updates.badges import register_badges
        from updates.models import VmUpdateState
        from updates.selectors.coverage import vms_covered
        from updates.selectors.fleet import vms_lacking
        from updates.selectors.fleet_forecast import vms_rebooting
        from updates.selectors.fleet_trouble import vms_in_trouble
        from updates.selectors.pending_machines import vms_failed_on, vms_having, vms_holding
        from updates.services.replacement import forget_replaced_machines
        from vms.filters import tell_filter
        from vms.selectors import tell_assessed
        from vms.services.replacement import follow_replacements

        follow_replacements(forget_replaced_machines)
        register_badges()
        assessed_at = Subquery(VmUpdateState.objects.filter(vm=OuterRef("pk")).values("last_assessed_at"))
        tell_assessed(assessed_at, path="update_state__last_assessed_at")
        tell_filter("lacks", vms_lacking)
        tell_filter("trouble", vms_in_trouble)
        tell_filter("has", vms_having)
        tell_filter("failed", vms_failed_on)
        tell_filter("held", vms_holding)
        tell_filter("reboots", vms_rebooting)
        tell_filter("coverage", vms_covered)
