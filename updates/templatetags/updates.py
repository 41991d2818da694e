"""Codes become words in templates: `{% load updates %}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from connectors.probe import ProbeFailure
from patching.forecast import Hindrance, RebootCause
from patching.orchestrator import Patcher, PatcherReason
from patching.recurrence import zone_of
from patching.selection import HoldReason, RebootProspect, SelectionReason
from patching.status import StaleCause
from patching.terms import InstallationPlan, RebootBehavior
from patching.track import Contradiction, OffTrainReason
from ui.templatetags.portal import kb_text
from updates.choices import CLASSIFICATIONS, INSTALLATION_STATES, REBOOT_BEHAVIORS
from updates.forms.install import class_labels
from updates.forms.recurrence import recurrence_or_none, words_of
from updates.models import BulkRequest, MaintenanceConfiguration, Operation, OperationEvent, Rollout, RolloutMember
from updates.selectors.again import Again
from updates.selectors.decisions import load_news
from updates.selectors.maintenance import read_configuration
from updates.texts import (
    AGAIN_PROBLEMS,
    CONTRADICTIONS,
    EVENTS,
    HOLDS,
    OFF_TRAIN_REASONS,
    PATCHER_REASONS,
    PATCHERS,
    PROBE_FAILURES,
    PROSPECTS,
    REASONS,
    ROLLOUT_REASONS,
    RUNNING,
    STALE_CAUSES,
    STEPS,
    ErrorText,
    Text,
    error_text,
    fault_text,
)
from updates.titles import title_by_plan, title_of
from vms.choices import REBOOT_SETTINGS
from vms.regions import every_clock
from vms.texts import CAUSES, HINDRANCES

register = template.Library()


@register.inclusion_tag("updates/fleet_news.html", takes_context=True)
def fleet_news(context: Mapping[str, Any]) -> dict[str, Any]:
    """How old the catalogue is and which KBs wait for a decision, for the head of a page of the fleet."""
    return {"news": load_news(context["request"].user)}


@register.simple_tag
def kb_page(number: str) -> SafeString | str:
    """A KB article as people write it, with a link to our page of it: who lacks it, has it, failed on it."""
    if not number:
        return "–"
    return format_html('<a class="kb nowrap" href="{}">KB{}</a>', reverse("updates:kb", args=[number]), number)


@register.filter
def hindrance_words(hindrance: Hindrance) -> Text:
    """Why what needs a reboot brings none by itself."""
    return HINDRANCES[hindrance]


@register.filter
def contradiction_words(contradiction: Contradiction) -> Text:
    """What does not fit together."""
    return CONTRADICTIONS[contradiction]


@register.filter
def off_train_words(reason: OffTrainReason) -> Text:
    """Why a machine is not on the train."""
    return OFF_TRAIN_REASONS[reason]


@register.filter
def hold_words(reason: str) -> Text:
    """Why the guard asks about an update."""
    return HOLDS[HoldReason(reason)]


_REBOOT_SETTINGS = dict(REBOOT_SETTINGS)

_CLASSIFICATIONS = dict(CLASSIFICATIONS)
_REBOOT_BEHAVIORS = dict(REBOOT_BEHAVIORS)
_INSTALLATION_STATES = dict(INSTALLATION_STATES)


def _filled(text: Text, detail: Mapping[str, Any]) -> str:
    name = kb_text(str(detail.get("kb_number", ""))) or str(detail.get("title", ""))
    return str(text) % {"name": name, "index": detail.get("index", ""), "total": detail.get("total", "")}


@register.filter
def run_reason(code: str) -> ErrorText:
    """Why machines of a run failed: an error, or what a rollout found."""
    return ErrorText(ROLLOUT_REASONS[code], "") if code in ROLLOUT_REASONS else error_text(code)


@register.filter
def run_title(run: BulkRequest | Rollout) -> str:
    """What a run on many machines is called."""
    return title_of(run)


@register.filter
def run_plan(run: BulkRequest | Rollout) -> str:
    """What a run on many machines does, whatever it is called."""
    return title_by_plan(run)


@register.filter
def error_words(code: str) -> ErrorText:
    """Title and advice of an error code."""
    return error_text(code)


@register.filter
def fault_words(code: str) -> Text:
    """Where the cause of an error lies."""
    return fault_text(code)


@register.filter
def event_words(event: OperationEvent) -> str:
    """One line of a timeline."""
    return _filled(EVENTS.get(event.code, event.code), event.detail)


@register.filter
def step_words(progress: Mapping[str, Any]) -> str:
    """What a running operation is doing."""
    return _filled(STEPS.get(progress.get("step", ""), ""), progress)


@register.filter
def reason_words(reason: str) -> Text:
    """Why a plan takes or leaves a patch."""
    return REASONS[SelectionReason(reason)] if reason in set(SelectionReason) else reason


@register.filter
def running_words(operation: Operation) -> str:
    """What an open operation is doing, for the title of a tab."""
    return f"● {RUNNING.get((operation.kind, operation.state)) or RUNNING[operation.kind, '']}"


@register.filter
def patcher_words(patcher: Patcher) -> Text:
    """Who patches a VM."""
    return PATCHERS[patcher]


@register.filter
def windows_zone(name: str) -> ZoneInfo:
    """The zone that Windows calls by this name, for `when_in`."""
    return zone_of(name)


@register.filter
def next_wall(row: MaintenanceConfiguration) -> datetime | None:
    """What a clock shows when a configuration that can be read, on each machine's own clock, opens next anywhere."""
    if row.next_run_at is None:
        return None
    timing = read_configuration(row).timing
    opening = timing.next_opening(every_clock(), after=row.next_run_at - timedelta(microseconds=1))
    return opening.wall if opening else None


@register.filter
def patcher_reason(reason: PatcherReason) -> Text:
    """Why it is this one, and what to change."""
    return PATCHER_REASONS[reason]


@register.filter
def rollout_reason(code: str) -> Text:
    """Why a rollout waits or paused, or why a machine was skipped."""
    return ROLLOUT_REASONS[code] if code in ROLLOUT_REASONS else error_text(code).title


@register.filter
def recurrence_words(text: str) -> str:
    """How often a window opens, as people say it; what cannot be read as it is."""
    found = recurrence_or_none(text)
    return text if found is None else words_of(found)


@register.filter
def reboot_setting_words(value: str) -> Text:
    """What a plan does about reboots."""
    return _REBOOT_SETTINGS[value]


@register.filter
def probe_words(member: RolloutMember) -> str:
    """What the last answer of its health probe was, if it was not well."""
    if not member.probe_failure:
        return ""
    return str(PROBE_FAILURES[ProbeFailure(member.probe_failure)]) % {"detail": member.probe_detail or "–"}


@register.filter
def stale_words(cause: StaleCause) -> Text:
    """Why what is shown of a VM is old."""
    return STALE_CAUSES[cause]


@register.filter
def cause_words(cause: RebootCause) -> Text:
    """Why a month brings a reboot."""
    return CAUSES[cause]


@register.filter
def prospect_words(prospect: RebootProspect) -> Text:
    """Whether a run will reboot."""
    return PROSPECTS[prospect]


@register.filter
def class_words(value: str) -> Text:
    """A classification."""
    return _CLASSIFICATIONS.get(value, value)


@register.filter
def reboot_words(value: str) -> Text:
    """What a patch does about reboots."""
    return _REBOOT_BEHAVIORS[RebootBehavior(value).value]


@register.filter
def installation_words(value: str) -> Text:
    """What a run did with a patch."""
    return _INSTALLATION_STATES[value]


@register.filter
def plan_classes(plan: InstallationPlan) -> list[Text]:
    """The classes of a plan in words, in their own order."""
    return class_labels(plan)


@register.filter
def again_words(again: Again) -> str:
    """Why the same plan cannot be asked for again."""
    return str(AGAIN_PROBLEMS[again.problem]) % {"value": again.value} if again.problem else ""
