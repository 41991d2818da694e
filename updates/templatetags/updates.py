"""Codes become words in templates: `{% load updates %}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template

from patching.forecast import RebootCause
from patching.orchestrator import Patcher, PatcherReason
from patching.selection import RebootProspect, SelectionReason
from patching.terms import RebootBehavior
from ui.templatetags.portal import kb_text
from updates.choices import CLASSIFICATIONS, INSTALLATION_STATES, REBOOT_BEHAVIORS
from updates.models import Operation, OperationEvent
from updates.texts import (
    CAUSES,
    EVENTS,
    PATCHER_REASONS,
    PATCHERS,
    PROSPECTS,
    REASONS,
    ROLLOUT_REASONS,
    RUNNING,
    STEPS,
    ErrorText,
    Text,
    error_text,
)

register = template.Library()

_CLASSIFICATIONS = dict(CLASSIFICATIONS)
_REBOOT_BEHAVIORS = dict(REBOOT_BEHAVIORS)
_INSTALLATION_STATES = dict(INSTALLATION_STATES)


def _filled(text: Text, detail: Mapping[str, Any]) -> str:
    name = kb_text(str(detail.get("kb_number", ""))) or str(detail.get("title", ""))
    return str(text) % {"name": name, "index": detail.get("index", ""), "total": detail.get("total", "")}


@register.filter
def error_words(code: str) -> ErrorText:
    """Title and advice of an error code."""
    return error_text(code)


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
def patcher_reason(reason: PatcherReason) -> Text:
    """Why it is this one, and what to change."""
    return PATCHER_REASONS[reason]


@register.filter
def rollout_reason(code: str) -> Text:
    """Why a rollout waits or paused, or why a machine was skipped."""
    return ROLLOUT_REASONS[code] if code in ROLLOUT_REASONS else error_text(code).title


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
