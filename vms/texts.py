"""Codes of the inventory in the operator's words."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from patching.probes import ProbeProblem
from patching.settings_rules import SettingsProblem

Text = str | Promise

SETTINGS_PROBLEMS: dict[SettingsProblem, Text] = {
    SettingsProblem.HOTPATCH_NOT_AVAILABLE: _("Hotpatch is not available on this machine."),
    SettingsProblem.HOTPATCH_NEEDS_AGENT: _("Hotpatch needs the VM agent."),
    SettingsProblem.HOTPATCH_NEEDS_PLATFORM_MODE: _(
        "Hotpatch needs the orchestration “Azure Managed - Safe Deployment”."
    ),
    SettingsProblem.HOTPATCH_NEEDS_SAFETY_CHECKS: _("Hotpatch does not go together with “Customer Managed Schedules”."),
    SettingsProblem.PLATFORM_MODE_NEEDS_AGENT: _("Orchestration by Azure needs the VM agent."),
    SettingsProblem.PLATFORM_ASSESSMENT_NEEDS_AGENT: _("Periodic assessment needs the VM agent."),
    SettingsProblem.MANUAL_NEEDS_AUTOMATIC_UPDATES_OFF: _(
        "Manual updates need automatic updates to be off, which is fixed at creation."
    ),
    SettingsProblem.OS_MODE_NEEDS_AUTOMATIC_UPDATES_ON: _(
        "Windows Automatic Updates need automatic updates to be on, which is fixed at creation."
    ),
    SettingsProblem.BYPASS_NEEDS_PLATFORM_MODE: _("Customer managed schedules need orchestration by Azure."),
    SettingsProblem.AUTOMATIC_UPDATES_FIXED_AT_CREATION: _("Automatic updates can be switched at creation only."),
    SettingsProblem.NO_WAY_BETWEEN_OS_AND_MANUAL: _(
        "There is no way between Windows Automatic Updates and Manual updates; choose Customer Managed Schedules instead."
    ),
}
REFUSALS: dict[str, Text] = {
    "not_owner": _("Changing settings takes the role Owner on this machine."),
    "reported_by_machine": _(
        "On Azure Stack HCI settings are what the machine reports; change them with Group Policy or SConfig."
    ),
}
SETTING_LABELS: dict[str, Text] = {
    "patch_mode": _("Patch orchestration"),
    "bypass_platform_safety_checks": _("Customer managed schedules"),
    "assessment_mode": _("Periodic assessment"),
    "enable_hotpatching": _("Hotpatch"),
    "reboot_setting": _("Reboot setting"),
    "enable_automatic_updates": _("Automatic updates"),
    "provision_vm_agent": _("VM agent"),
}
PROBE_PROBLEMS: dict[ProbeProblem, Text] = {
    ProbeProblem.TOO_LONG: _("A health probe has at most 200 characters."),
    ProbeProblem.BAD_CHARACTER: _("“%(entry)s” cannot be in a health probe."),
    ProbeProblem.BAD_SCHEME: _("A health probe begins with tcp://, http:// or https://."),
    ProbeProblem.CREDENTIALS: _("A health probe carries no user name and no password."),
    ProbeProblem.HOST_MISSING: _("The host is missing; write tcp://host:port or http://host/path."),
    ProbeProblem.BAD_HOST: _("“%(entry)s” is neither a host name nor an IP address."),
    ProbeProblem.PORT_MISSING: _("The port is missing; write tcp://host:port."),
    ProbeProblem.BAD_PORT: _("“%(entry)s” is not a port; write 1 to 65535."),
    ProbeProblem.PATH_NOT_ALLOWED: _("“%(entry)s” does not belong after the port; write tcp://host:port."),
}
