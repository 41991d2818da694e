"""Codes in the operator's words: errors with advice, events of a timeline, reasons, causes, steps.

Every code that the engine, the rules or a connector can give has its words here (tests/updates/test_texts.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Model
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from connectors.probe import ProbeFailure
from patching.forecast import RebootCause
from patching.one_release import DecisionProblem
from patching.orchestrator import Patcher, PatcherReason
from patching.recurrence import Frequency, RecurrenceProblem
from patching.release_files import FileProblem, RowProblem
from patching.selection import PlanProblem, RebootProspect, SelectionReason
from patching.status import StaleCause
from updates.choices import RELEASE_TYPES
from vms import choices

Text = str | Promise


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What went wrong, and what to do about it."""

    title: Text
    advice: Text


ERRORS: dict[str, ErrorText] = {
    "window.exceeded": ErrorText(
        _("The maximum duration was too short."),
        _(
            "Before each update 10 minutes for the update (15 for a service pack) and 10 for the reboot must be left. "
            "Run it again with a longer maximum duration: what is installed stays installed."
        ),
    ),
    "patch.failed": ErrorText(
        _("At least one update could not be installed."),
        _(
            "See the update's own error below. Run the installation again; if it fails again, look the error up for its KB."
        ),
    ),
    "reboot.failed": ErrorText(
        _("The machine did not come back from its reboot in time."),
        _("Look at its console or serial log. When it answers again, assess it to see what is installed."),
    ),
    "reboot.required": ErrorText(
        _("A reboot is required to finish the installation."),
        _(
            "The reboot option was “Never reboot”. Reboot the machine in a maintenance window; until then the old code runs."
        ),
    ),
    "assessment.failed": ErrorText(
        _("The assessment failed."), _("Check the Windows Update service of the machine, then assess again.")
    ),
    "bulk.failed": ErrorText(
        _("The rest of this request could not be handed out."),
        _("The workers' log has the cause. Machines without an answer were not asked; ask for them again."),
    ),
    "rollback.unknown_state": ErrorText(
        _("Nobody knows which updates are installed, or they do not explain the machine's build."),
        _("Assess the machine first; only then there is a way back."),
    ),
    "rollback.no_earlier_baseline": ErrorText(
        _("No earlier baseline is known to go back to."), _("Restore the machine from a backup instead.")
    ),
    "connector.silent": ErrorText(
        _("The machine has not answered for an hour after the maximum duration."),
        _("Nobody knows what was installed. An assessment has been queued; installations wait until it has answered."),
    ),
    "start.unconfirmed": ErrorText(
        _("Nobody can tell whether the machine received the start."),
        _(
            "It is not sent again, so nothing runs twice. An assessment has been queued that finds out what is installed."
        ),
    ),
    "connector.unreachable": ErrorText(
        _("The machine could not be reached."), _("Check that it is running and on the network, then try again.")
    ),
    "connector.throttled": ErrorText(
        _("The other side asked us to slow down, for too long."), _("Try again in a few minutes.")
    ),
    "connector.timeout": ErrorText(
        _("The other side did not answer in time."), _("Assess the machine to see what is installed, then try again.")
    ),
    "connector.garbage": ErrorText(
        _("The answer could not be understood."),
        _("Look at the technical detail. Assess the machine to see what is installed."),
    ),
    "agent.not_ready": ErrorText(
        _("The VM agent is not ready."),
        _("Check that the agent is installed and running in the machine, then try again."),
    ),
    "hotpatch.vbs_off": ErrorText(
        _("The machine is not ready for hotpatches: virtualization-based security does not run."),
        _(
            "Turn virtualization-based security on (UEFI with Secure Boot is needed), reboot the machine and assess it. "
            "Until then Windows Update offers it cumulative updates, which reboot."
        ),
    ),
    "hotpatch.extension_unhealthy": ErrorText(
        _("The hotpatch extension of the machine is unhealthy."),
        _(
            "Uninstall the extension Microsoft.CPlat.Core.WindowsHotpatch and assess the machine, which installs it again. "
            "Then run the installation again."
        ),
    ),
    "hotpatch.baseline_required": ErrorText(
        _("The machine needs its baseline before a hotpatch."),
        _("Install the newest baseline, which reboots, and assess the machine. Then the hotpatch applies."),
    ),
    "vm.not_running": ErrorText(_("The machine is not running."), _("Start it, then try again.")),
    "vm.unsupported": ErrorText(
        _("This operating system is not supported."),
        _("Hotpatch Portal knows Windows Server 2022 and 2025 by their image or their OS build."),
    ),
    "vm.awaiting_assessment": ErrorText(
        _("The last installation fell silent, and nobody knows what is installed."),
        _("Assess the machine first; installations are possible again when it has answered."),
    ),
    "conflict.installation_open": ErrorText(
        _("An installation or a rollback is queued or running on this machine."),
        _("Wait until it has ended, or cancel it while it is queued."),
    ),
    "request.id_taken": ErrorText(
        _("This form belongs to another request."), _("Open the page again and repeat your choice.")
    ),
}
UNKNOWN_ERROR = ErrorText(_("Something went wrong."), _("Look at the technical detail, then try again."))

EVENTS: dict[str, Text] = {
    "operation.requested": _("Requested"),
    "operation.starting": _("Starting"),
    "operation.started": _("The machine has started to work"),
    "operation.start_deferred": _("Not sent yet: the machine or its platform refused for now"),
    "operation.recovered": _("Taken over by another worker"),
    "patch.installing": _("Installing %(name)s (%(index)s of %(total)s)"),
    "patch.uninstalling": _("Uninstalling %(name)s (%(index)s of %(total)s)"),
    "operation.rebooting": _("Rebooting"),
    "operation.rebooted": _("Back from the reboot"),
    "operation.finished": _("Finished"),
    "operation.cancelled": _("Cancelled"),
}

STEPS: dict[str, Text] = {
    "assessing": _("Looking for updates"),
    "downloading": _("Downloading updates"),
    "installing": _("Installing %(name)s, %(index)s of %(total)s"),
    "uninstalling": _("Uninstalling %(name)s, %(index)s of %(total)s"),
    "rebooting": _("Rebooting"),
    "verifying": _("Looking at what is installed now"),
}

REASONS: dict[SelectionReason, Text] = {
    SelectionReason.CLASS_SELECTED: _("Its class is selected"),
    SelectionReason.KB_INCLUDED: _("Its KB is on the include list"),
    SelectionReason.GUARD_OVERRIDDEN: _("You allowed it although it takes the machine off the hotpatch track"),
    SelectionReason.EXCLUDED_BY_KB: _("Its KB is on the exclude list"),
    SelectionReason.NOT_IN_CLASSES: _("Its class is not selected"),
    SelectionReason.GUARD: _("It would take the machine off the hotpatch track"),
    SelectionReason.REQUIRES_REBOOT: _("It may need a reboot, and you excluded those"),
    SelectionReason.PUBLISHED_LATER: _("It was published after the latest day you chose"),
    SelectionReason.NAME_MASK_EXCLUDED: _("Its name is excluded"),
    SelectionReason.NAME_MASK_NOT_INCLUDED: _("Its name is not included"),
}

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

PROSPECTS: dict[RebootProspect, Text] = {
    RebootProspect.NEVER: _("No reboot"),
    RebootProspect.POSSIBLE: _("May reboot"),
    RebootProspect.CERTAIN: _("Will reboot"),
    RebootProspect.REQUIRED_BUT_NOT_ALLOWED: _("A reboot may be needed and will not happen"),
}

PATCHERS: dict[Patcher, Text] = {Patcher(value): words for value, words in choices.PATCHERS}
PATCHER_REASONS: dict[PatcherReason, Text] = {
    PatcherReason.AUTOMATIC_GUEST_PATCHING: _("Critical and Security updates, in off-peak hours."),
    PatcherReason.SCHEDULE_ATTACHED: _("A maintenance configuration means this machine."),
    PatcherReason.WINDOWS_AUTOMATIC_UPDATES: _("Windows Automatic Updates are on."),
    PatcherReason.MANUAL_UPDATES: _("Manual updates: install them from here, or attach a maintenance configuration."),
    PatcherReason.NO_AGENT: _("The machine has no VM agent."),
    PatcherReason.AUTOMATIC_SWITCHED_OFF: _("Automatic guest patching is switched off on its connection."),
    PatcherReason.SCHEDULE_MISSING: _(
        "Customer Managed Schedules are chosen and no maintenance configuration means this machine. Make one, or choose "
        "“Azure Managed - Safe Deployment”."
    ),
    PatcherReason.SCHEDULE_NEEDS_BYPASS: _(
        "A maintenance configuration means this machine and will not run. Choose Customer Managed Schedules; hotpatch has to "
        "be off for it."
    ),
    PatcherReason.SCHEDULE_NEEDS_PLATFORM_MODE: _(
        "A maintenance configuration means this machine and will not run. Choose Customer Managed Schedules."
    ),
}
ROLLOUT_REASONS: dict[str, Text] = {
    "rollout.budget_used": _("Too many machines failed or are unhealthy. Look at them, then resume or end it."),
    "rollout.paused_by_person": _("Paused by a person."),
    "rollout.ended_by_person": _("Ended by a person."),
    "rollout.off_peak": _("Waits for off-peak hours (22:00 to 04:00) of the machines of this wave."),
    "rollout.beside_others": _(
        "Waits for machines that must not be changed at the same time: of the paired region, another zone, or one group."
    ),
    "rollout.soaking": _("Waits after the wave, to see whether the machines stay well."),
    "rollout.catching_up": _("Waits for machines that were off: each is updated once it runs again."),
    "rollout.ring_soaking": _("Waits before the next ring, to see whether the machines of this one stay well."),
    "rollout.nothing_proven": _("The rings before installed nothing without trouble, so nothing is proven."),
    "rollout.window_over": _("The maintenance window was over before its turn."),
    "rollout.role_missing": _("Who asked for it is no Patch operator of the machine any more."),
    "vm.not_running": _("The machine was not running."),
    "health.no_agent": _("The machine has no VM agent."),
    "health.waiting": _("Updated; its health probe is asked until it answers, for 10 minutes."),
    "health.unhealthy_before": _("Its health probe was not well before the update, so the machine was left alone."),
    "health.unhealthy_after": _("Its health probe was still not well 10 minutes after the update."),
}
PROBE_FAILURES: dict[ProbeFailure, Text] = {
    ProbeFailure.MALFORMED: _("What is written as its health probe is none."),
    ProbeFailure.NO_NETWORKS: _("No network may be asked (PROBE_NETWORKS)."),
    ProbeFailure.NOT_ALLOWED: _("It leads to %(detail)s, outside of the networks that may be asked (PROBE_NETWORKS)."),
    ProbeFailure.UNRESOLVED: _("Its host name could not be resolved."),
    ProbeFailure.REFUSED: _("The connection was refused, or ended before an answer."),
    ProbeFailure.TIMEOUT: _("No answer came in time."),
    ProbeFailure.TLS: _("The TLS connection failed: %(detail)s"),
    ProbeFailure.STATUS: _("It answered with HTTP status %(detail)s."),
    ProbeFailure.GARBAGE: _("The answer was no HTTP."),
    ProbeFailure.BROKEN: _("The probe itself failed: %(detail)s"),
}

RECURRENCE_PROBLEMS: dict[RecurrenceProblem, Text] = {
    RecurrenceProblem.BAD_HEAD: _("Begin with Day, Week or Month, with a number before it if it is not every one."),
    RecurrenceProblem.BAD_NUMBER: _("“%(entry)s” is too few or too many between two windows."),
    RecurrenceProblem.SURPLUS: _("“%(entry)s” does not belong after days."),
    RecurrenceProblem.BAD_WEEKDAY: _("“%(entry)s” is no weekday; write Monday to Sunday in English."),
    RecurrenceProblem.DAYS_MISSING: _("A month needs its days (day15) or a weekday (Second Tuesday)."),
    RecurrenceProblem.BAD_DAY: _("“%(entry)s” is no day of a month; write day1 to day31."),
    RecurrenceProblem.BAD_ORDINAL: _("“%(entry)s” is neither day1 to day31 nor First, Second, Third, Fourth or Last."),
    RecurrenceProblem.WEEKDAY_MISSING: _("“%(entry)s” needs a weekday after it."),
    RecurrenceProblem.BAD_OFFSET: _("“%(entry)s” is no offset; write Offset-27 to Offset27."),
}

# What a dynamic scope is made of.
SCOPE_LABELS: dict[str, Text] = {
    "subscription": _("Subscription"),
    "resource_group": _("Resource group"),
    "location": _("Location"),
    "image_sku": _("SKU"),
    "tag_name": _("Tag"),
    "tag_value": _("Value of the tag"),
}

# How often a window opens: by what it counts in, how the day is named, and whether it is every one.
RECURRENCES: dict[tuple[Frequency, str, bool], Text] = {
    (Frequency.DAY, "", True): _("Every day"),
    (Frequency.DAY, "", False): _("Every %(count)s days"),
    (Frequency.WEEK, "", True): _("Every week"),
    (Frequency.WEEK, "", False): _("Every %(count)s weeks"),
    (Frequency.WEEK, "weekdays", True): _("Every week on %(weekdays)s"),
    (Frequency.WEEK, "weekdays", False): _("Every %(count)s weeks on %(weekdays)s"),
    (Frequency.MONTH, "days", True): _("Every month on day %(days)s"),
    (Frequency.MONTH, "days", False): _("Every %(count)s months on day %(days)s"),
    (Frequency.MONTH, "ordinal", True): _("Every month on the %(which)s"),
    (Frequency.MONTH, "ordinal", False): _("Every %(count)s months on the %(which)s"),
}

ORDINALS: dict[str, Text] = {
    "First": _("first %(weekday)s"),
    "Second": _("second %(weekday)s"),
    "Third": _("third %(weekday)s"),
    "Fourth": _("fourth %(weekday)s"),
    "Last": _("last %(weekday)s"),
}

# What an open operation is doing, by kind and state; the empty state stands for every other.
RUNNING: dict[tuple[str, str], Text] = {
    ("assessment", "queued"): _("Queued"),
    ("assessment", ""): _("Assessing"),
    ("installation", "queued"): _("Queued"),
    ("installation", "rebooting"): _("Rebooting"),
    ("installation", ""): _("Installing"),
    ("rollback", "queued"): _("Queued"),
    ("rollback", "rebooting"): _("Rebooting"),
    ("rollback", ""): _("Rolling back"),
}

STALE_CAUSES: dict[StaleCause, Text] = {
    StaleCause.FAILED: _("The last try failed."),
    StaleCause.NOT_RUNNING: _("The machine does not run; it is assessed once it does."),
    StaleCause.PAUSED: _("Its connection is paused."),
    StaleCause.NOT_PERIODIC: _("Periodic assessment is off."),
    StaleCause.WAITING: _("It waits for its turn."),
}

PLAN_PROBLEMS: dict[PlanProblem, Text] = {
    PlanProblem.NOTHING_SELECTED: _("Choose at least one classification, or include a KB article."),
    PlanProblem.DURATION_OUT_OF_RANGE: _("The maximum duration is 1 to 235 minutes."),
    PlanProblem.TOO_MANY_KBS: _("At most 500 KB articles can be listed."),
    PlanProblem.BAD_NAME_MASK: _("A name mask has letters, digits, * and ? only."),
}

# What is wrong with a file of the catalogue, or with a field of a row (docs/catalogue-files.md).
CATALOGUE_PROBLEMS: dict[str, Text] = {
    FileProblem.NOT_UTF8: _("The file is not UTF-8. Save it as JSON or as CSV in UTF-8."),
    FileProblem.NO_JSON: _("The file is no JSON: line %(line)s, column %(column)s."),
    FileProblem.NO_LIST: _("The file must hold a list of objects."),
    FileProblem.NO_TABLE: _(
        "The file is neither JSON nor CSV of the catalogue: its first line must name the columns, “type” for releases or "
        "“title” for other updates among them."
    ),
    FileProblem.TOO_MANY_ROWS: _("The file has more than %(most)s rows. Divide it."),
    FileProblem.BAD_LINE: _("Line %(line)s cannot be read as CSV: %(detail)s."),
    FileProblem.CELLS: _("it has not as many cells as the first line."),
    FileProblem.COLUMN_TWICE: _("“%(name)s” is named twice. One of the two would be lost."),
    FileProblem.NEITHER_KIND: _(
        "the row names neither “type” nor “title”. A release needs product, month, type and status; another update needs "
        "title and kb."
    ),
    FileProblem.OTHER_TYPE: _(
        '%(kb)s is recorded as “%(recorded)s”, and the row says “%(said)s”. If that is right, add "corrects": true to the row.'
    ),
    FileProblem.OTHER_OF_MONTH: _(
        "the row says “%(said)s”, but for its month “%(recorded)s” %(recorded_kb)s is recorded, and a month has one of the two. "
        'If both are right, add "corrects": true to the row.'
    ),
    FileProblem.IS_RELEASE: _("%(kb)s is recorded as a release of Windows, and is no other update."),
    RowProblem.NO_OBJECT: _("the row is no object."),
    RowProblem.MISSING: _("is missing."),
    RowProblem.NO_TEXT: _("“%(value)s” is no text, or holds characters that no text has."),
    RowProblem.TOO_LONG: _("is too long: “%(value)s”"),
    RowProblem.NO_PRODUCT: _("“%(value)s” is no known product line."),
    RowProblem.NO_MONTH: _("“%(value)s” is no month (YYYY-MM)."),
    RowProblem.NO_DAY: _("“%(value)s” is no day (YYYY-MM-DD)."),
    RowProblem.OUTSIDE_MONTH: _("“%(value)s” is no day of the row’s month."),
    RowProblem.NO_TYPE: _(
        "“%(value)s” is no release type. Types are baseline, hotpatch, lcu, oob_hotpatch and oob_lcu."
    ),
    RowProblem.NO_STATUS: _("“%(value)s” is neither released nor scheduled."),
    RowProblem.NO_TRUTH: _("“%(value)s” is neither true nor false."),
    RowProblem.NO_KB: _("“%(value)s” is no KB number. It has six or seven digits, as in KB5034129."),
    RowProblem.NO_BUILD: _("“%(value)s” is no build, as 20348.5074 is."),
    RowProblem.OTHER_LINE: _("“%(value)s” is a build of another product line."),
    RowProblem.NO_CHANNEL: _("“%(value)s” is none of windows_update, catalog_and_wsus, withdrawn and unknown."),
    RowProblem.NO_AUDIENCE: _("“%(value)s” is none of everybody, few and unknown."),
    RowProblem.NO_CLASSIFICATION: _("“%(value)s” is no classification."),
}

# The fields of a file, as the import page explains them (docs/catalogue-files.md says more).
RELEASE_FIELD_HELP: dict[str, Text] = {
    "product": _("The product line by its full name, without regard to case."),
    "month": _("The month that Microsoft counts the release to, as 2026-05."),
    "release_date": _("Its day, as 2026-05-12. Left out: the second Tuesday, marked as inferred."),
    "type": _("baseline, hotpatch, lcu, oob_hotpatch or oob_lcu."),
    "planned": _("true or false, on baselines only."),
    "kb": _("Its KB number, as KB5087424. Left out: not known yet; a later row fills it."),
    "build": _("The build that it brings, as 20348.5074."),
    "status": _("released, or scheduled for what is only announced."),
    "channel": _("On out-of-band releases: windows_update, catalog_and_wsus, withdrawn or unknown."),
    "audience": _("On out-of-band releases: everybody, few or unknown."),
    "evidence": _(
        "“primary” where Microsoft’s own page gives the type; with any other word the type waits to be confirmed."
    ),
    "source": _("Where it was read."),
    "note": _("What else there is to know."),
    "corrects": _("true, where the row is meant to change the recorded type."),
}
OTHER_FIELD_HELP: dict[str, Text] = {
    "product": _("The product line. Left out: for every product line."),
    "month": _("Its month, as 2026-05."),
    "kb": _("Its KB number."),
    "title": _("Its title, as Windows Update shows it."),
    "classification": _("Critical, Security, UpdateRollUp, FeaturePack, ServicePack, Definition, Tools or Updates."),
    "source": _("Where it was read."),
}

DECISION_PROBLEMS: dict[DecisionProblem, Text] = {
    DecisionProblem.NO_REASON: _("Say why, with the source if there is one."),
    DecisionProblem.NO_UPDATE: _("No machine of this product line has reported this update."),
    DecisionProblem.NO_MONTH: _(
        "Neither the date nor the title of this update tells its month. Record it in the admin site."
    ),
    DecisionProblem.OTHER_OF_MONTH: _(
        "This month has its baseline or its cumulative update already, and a month has one of the two."
    ),
    DecisionProblem.IS_GONE: _("This release is no longer recorded."),
}

INSTALLATION_STATES_PLANNED = pgettext_lazy("verdict of a plan", "Will be installed")


def error_text(code: str) -> ErrorText:
    """The words of an error code; a code without words is still an error, and its code is shown beside it."""
    return ERRORS.get(code, UNKNOWN_ERROR)


def catalogue_problem(problem: str, *, row: int | None, field: str, facts: Mapping[str, str]) -> str:
    """One sentence: where in a file of the catalogue, and what is wrong there."""
    types = {value: str(label) for value, label in RELEASE_TYPES}
    named = {name: types.get(value, value) if name in {"said", "recorded"} else value for name, value in facts.items()}
    words = str(CATALOGUE_PROBLEMS[problem]) % named
    if row is None:
        return words
    where = _("Row %(row)s, %(field)s: %(words)s") if field else _("Row %(row)s: %(words)s")
    return str(where) % {"row": row, "field": field, "words": words}


def value_text(row: Model, name: str, value: object) -> str:
    """The value of a field as a person reads it: a choice by its label, true and false as words, nothing as nothing."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(_("Yes") if value else _("No"))
    labels = dict(getattr(row._meta.get_field(name), "flatchoices", ()))
    return str(labels.get(value, value))
