"""The texts of mails, in the language and time zone of their reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, override

from patching.selection import HoldReason
from updates.models import BulkRequest, Rollout
from updates.selectors.decisions import Waiting as Question
from updates.texts import HOLDS, ROLLOUT_REASONS, error_text

MAX_NAMES = 10  # of machines, in one mail


@dataclass(frozen=True, slots=True)
class Reader:
    """Who gets a mail: where, in which language, on which clock."""

    address: str
    language: str
    zone: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a mail says."""

    subject: str
    body: str


def paused_rollout(rollout: Rollout, failed: Sequence[str], reader: Reader) -> Told:
    """That a rollout is paused, why, and the names of the machines that failed: those that the reader may see."""
    with override(reader.language):
        reason = ROLLOUT_REASONS.get(rollout.reason) or error_text(rollout.reason).title
        return Told(
            _line(_("Rollout paused: %(name)s") % {"name": rollout}),
            _text(
                _("The rollout “%(name)s” is paused. Nothing further is started until somebody resumes or ends it.")
                % {"name": _line(str(rollout))},
                f"{_('Why:')} {reason}",
                f"{_('Requested at:')} {_when(rollout.created_at, reader)}",
                *_machines(failed),
                path=rollout.get_absolute_url(),
            ),
        )


def failed_bulk_request(request: BulkRequest, failed: Sequence[str], reader: Reader) -> Told:
    """That a bulk request has ended with failures, and the names of the machines: those that the reader may see."""
    with override(reader.language):
        kind = request.get_kind_display()
        if request.failed_count:
            words = ngettext(
                "%(failed)s of %(count)s machines failed.", "%(failed)s of %(count)s machines failed.", request.vm_count
            )
            why = words % {"failed": request.failed_count, "count": request.vm_count}
        else:
            why = str(error_text(request.error_code).title)
        return Told(
            _line(_("Ended with failures: %(kind)s on many machines") % {"kind": kind}),
            _text(
                why,
                f"{_('Requested at:')} {_when(request.created_at, reader)}",
                *_machines(failed),
                path=f"{request.get_absolute_url()}?show=failed",
            ),
        )


def waiting_decision(question: Question, reader: Reader) -> Told:
    """That the hotpatch guard asks about an update, and how many machines wait."""
    with override(reader.language):
        name = f"KB{question.kb_number}"
        words = ngettext("%(count)s machine waits.", "%(count)s machines wait.", question.machines)
        return Told(
            _line(_("%(kb)s waits for a decision") % {"kb": name}),
            _text(
                f"{name} · {question.line.title} · {_line(question.title)}",
                f"{HOLDS[HoldReason(question.reason)]} {words % {'count': question.machines}}",
                _("One answer decides for all machines."),
                path=f"{reverse('updates:decisions')}#kb{question.kb_number}-{question.line.value}",
            ),
        )


def _machines(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = [f"- {_line(name)}" for name in names[:MAX_NAMES]]
    more = [_("… and more")] if len(names) > MAX_NAMES else []
    return ["\n".join([_("Machines that failed:"), *shown, *more])]


def _when(moment: datetime, reader: Reader) -> str:
    return f"{timezone.localtime(moment, ZoneInfo(reader.zone)):%Y-%m-%d %H:%M} ({reader.zone})"


def _line(text: str) -> str:
    """The text in one line: a name may have been typed with anything in it."""
    return " ".join(text.split())


def _text(*paragraphs: str, path: str) -> str:
    """The paragraphs, then where it is answered and how mail is switched off; without an address of the portal, in words."""
    where = settings.PORTAL_URL.rstrip("/")
    if where:
        links = [f"{where}{path}", f"{_('Your wishes for mail:')} {where}{reverse('account')}"]
    else:
        links = [_("Open the portal, and the bell in its top bar. Your wishes for mail are under your account.")]
    return "\n\n".join([*paragraphs, *links]) + "\n"
