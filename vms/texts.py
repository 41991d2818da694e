"""Codes of the inventory in the operator's words."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from connectors.configuration import Wrong
from connectors.protocol import Capability
from connectors.registry import Trouble, TroubleCode
from connectors.secrets import variable_of
from patching.forecast import Hindrance, RebootCause
from patching.probes import ProbeProblem
from patching.settings_rules import SettingsProblem
from vms.choices import Need, SelectionProblem

Text = str | Promise

CAUSES: dict[RebootCause, Text] = {
    RebootCause.REBOOT_PENDING: _("a reboot is pending"),
    RebootCause.BASELINE_DUE: _("the baseline is due"),
    RebootCause.PENDING_UPDATE: _("pending updates may reboot"),
    RebootCause.PENDING_UPDATE_REQUIRES: _("pending updates need a reboot"),
    RebootCause.PLANNED_BASELINE: _("planned baseline"),
    RebootCause.UNRECORDED_BASELINE: _("a baseline is due by the calendar and is not recorded"),
    RebootCause.UNPLANNED_BASELINE: _("unplanned baseline"),
    RebootCause.CUMULATIVE_UPDATE: _("cumulative update"),
    RebootCause.END_OF_HOTPATCHING: _("hotpatching has ended: cumulative update"),
    RebootCause.ALWAYS_REBOOTS: _("the reboot setting is Always"),
}

HINDRANCES: dict[Hindrance, Text] = {
    Hindrance.NEVER_REBOOTS: _("installed, waits for a reboot (the reboot setting is Never)"),
    Hindrance.NOBODY_PATCHES: _("due, nobody installs it"),
}

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
    "not_supported": _("The connection of this machine cannot change settings."),
    "operation_open": _("An operation that changes this machine is queued or running. Wait until it has ended."),
    "awaiting_assessment": _("Nobody knows how the last operation ended. Assess this machine first."),
    "reported_by_machine": _(
        "On Azure Stack HCI settings are what the machine reports; change them with Group Policy or SConfig."
    ),
}
# `name` is a parameter of an address, `label` the filter's word for it.
SELECTION_PROBLEMS: dict[SelectionProblem, Text] = {
    SelectionProblem.UNKNOWN_NAME: _(
        "“%(name)s” is nothing that machines can be chosen by. Choose a filter in the list instead."
    ),
    SelectionProblem.UNKNOWN_WORD: _(
        "“%(name)s:%(value)s” is no filter: there is no word “%(name)s”. The words are listed under “Add filter”."
    ),
    SelectionProblem.UNKNOWN_VALUE: _(
        "%(label)s: “%(value)s” does not exist, or you may not see it. Choose it again in the list."
    ),
    SelectionProblem.TOO_LONG: _("%(label)s: “%(value)s” is too long. Shorten it."),
    SelectionProblem.UNREADABLE: _("%(label)s: “%(value)s” holds a character that cannot be read. Type it again."),
    SelectionProblem.BLANK: _("%(label)s: “%(value)s” is blank. Fill it in, or remove it from the address."),
    SelectionProblem.NO_WORD: _("%(label)s: “%(value)s” holds no word to search for. Type part of a name."),
    SelectionProblem.GIVEN_TWICE: _("%(label)s is given more than once: “%(value)s”. Leave one."),
    SelectionProblem.NO_MACHINE_ID: _("“%(value)s” is no machine. Tick the machines in the list again."),
    SelectionProblem.MACHINE_GONE: _(
        "Machine %(value)s is gone, or you may not see it. Tick the machines in the list again."
    ),
    SelectionProblem.TICKED_AND_ALL: _(
        "Machines are ticked, and “%(value)s” asks for all that match as well. Ask for one of the two."
    ),
    SelectionProblem.NOTHING_TICKED: _(
        "No machine is ticked. Tick machines in the list, or ask for all that match beside it."
    ),
    SelectionProblem.NOTHING_MATCHES: _("No machine on which you may do this matches %(value)s."),
    SelectionProblem.ROLE_MISSING: _("You may not do this on any of the machines that you ticked."),
    SelectionProblem.TOO_MANY: _("%(value)s machines are more than go at once here. Narrow the list down."),
    SelectionProblem.TOO_SLOW: _("Counting the machines took too long. Narrow the list down."),
    SelectionProblem.NOT_SHOWN: _("Nobody has seen yet how many machines this means. Look at them, then confirm."),
    SelectionProblem.SET_CHANGED: _(
        "%(value)s machines were shown, and %(count)s match now. Look at them again, then confirm."
    ),
    SelectionProblem.MEMBERS_CHANGED: _(
        "%(count)s machines match, as many as were shown, but other ones. Look at them again, then confirm."
    ),
}
# What a machine needs, in one sentence.
NEEDS: dict[int, Text] = {
    Need.NOTHING: _("Nothing is missing"),
    Need.UNSUPPORTED: _("Not supported"),
    Need.ASSESSMENT: _("No updates data: assess it"),
    Need.BASELINE: _("Baseline due"),
    Need.REBOOT: _("Waits for its reboot"),
    Need.OVERDUE_BASELINE: _("Baseline overdue"),
    Need.TRACK: _("Off the hotpatch track"),
}
NEEDS_COUNTED: dict[int, Text] = {
    Need.OTHERS: ngettext_lazy("%(count)s other update", "%(count)s other updates", "count"),
    Need.UPDATES: ngettext_lazy(
        "%(count)s Critical or Security update", "%(count)s Critical or Security updates", "count"
    ),
    Need.INSTALLATION: ngettext_lazy(
        "%(count)s Critical or Security update, installed by nobody",
        "%(count)s Critical or Security updates, installed by nobody",
        "count",
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
# The fields of connectors' configurations by name: label and help. One without words here is shown by its name.
CONFIG_FIELDS: dict[str, tuple[Text, Text]] = {
    "catalogue_date": (_("catalogue date"), _("The simulator offers what was released by this day. Empty: today.")),
    "inventory_size": (_("machines that it lists"), _("How many simulated machines “Sync now” finds. 0: none.")),
    "clock_factor": (_("clock factor"), _("Simulated seconds that pass in one real second.")),
    "credential": (
        _("sign-in"),
        _(
            "environment: the variables of Microsoft's SDKs; managed_identity, workload_identity: the platform's; client_secret, certificate: the secret below."
        ),
    ),
    "tenant_id": (_("tenant"), _("Id or domain of the directory. Needed with a client secret or a certificate.")),
    "client_id": (_("client id"), _("Of the application or of the identity that the portal signs in as.")),
    "secret": (
        _("name of the secret"),
        _(
            "Not the secret: the portal's environment holds PORTAL_SECRET_ and this name. A certificate is PEM, with its key."
        ),
    ),
    "subscriptions": (_("subscriptions"), _("Ids of those that are read. Empty: all that the account sees.")),
    "endpoint": (_("Azure Resource Manager"), _("Another address for sovereign clouds and for portals like this one.")),
    "authority": (_("sign-in address"), _("Where tokens come from.")),
    "audience": (_("token audience"), _("What tokens are for. Empty: the address of Azure Resource Manager.")),
    "ca_bundle": (
        _("certificates"),
        _("Path of a file with the certificates that the cloud is trusted by. Empty: those that everybody trusts."),
    ),
    "seed": (_("seed"), _("What nobody knows of a simulated machine follows from this number.")),
}
CAPABILITIES: dict[Capability, Text] = {
    Capability.SETTINGS: _("change patch settings"),
    Capability.RESTART: _("restart machines"),
    Capability.UNINSTALL: _("uninstall updates (roll back)"),
    Capability.INSTALLED_UPDATES: _("list installed updates"),
}
CONFIG_PROBLEMS: dict[Wrong, Text] = {
    Wrong.MISSING: _("This is missing."),
    Wrong.UNKNOWN: _("This kind has no such setting."),
    Wrong.NOT_READABLE: _("“%(value)s” cannot be read: write a %(limit)s."),
    Wrong.TOO_SMALL: _("“%(value)s” is too small: %(limit)s or more."),
    Wrong.TOO_LARGE: _("“%(value)s” is too large: %(limit)s or less."),
    Wrong.NO_CHOICE: _("“%(value)s” is none of these: %(limit)s."),
    Wrong.NO_SECRET_NAME: _(
        "The name of a secret, not the secret: letters, digits and _. The portal's environment holds PORTAL_SECRET_ and this name."
    ),
    Wrong.NO_OBJECT: _("The stored configuration cannot be read. Fill in the form and save it."),
}
_TROUBLES: dict[TroubleCode, Text] = {
    TroubleCode.UNKNOWN_KIND: _("This portal has no connector of the kind “%(detail)s”."),
    TroubleCode.EXTRA_MISSING: _("What this kind needs is not installed. Run: %(detail)s"),
    TroubleCode.SECRET_MISSING: _(
        "The secret %(detail)s is missing. Set %(variable)s in the portal's environment, or %(variable)s_FILE to the path of a "
        "file that holds it."
    ),
    TroubleCode.BROKEN: _("Its connector cannot be loaded: %(detail)s"),
}


def trouble_words(trouble: Trouble) -> list[str]:
    """Why a connection cannot be used, a sentence for each thing to mend."""
    if trouble.code is not TroubleCode.CONFIGURATION:
        return [str(_TROUBLES[trouble.code]) % {"detail": trouble.detail, "variable": variable_of(trouble.detail)}]
    sentences = []
    for problem in trouble.problems:
        label = capfirst(str(CONFIG_FIELDS.get(problem.field, (problem.field, ""))[0]))
        words = str(CONFIG_PROBLEMS[problem.wrong]) % {"value": problem.value, "limit": problem.limit}
        sentences.append(f"{label}: {words}" if label else words)
    return sentences
