"""Mails on their way: one row for each person that an event is told to."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class Kind(models.TextChoices):
    """What is told."""

    ROLLOUT_PAUSED = "rollout_paused", _("Rollout paused")
    DECISION_WAITS = "decision_waits", _("Update waits for a decision")
    BULK_FAILED = "bulk_failed", _("Bulk request ended with failures")


class Status(models.TextChoices):
    """Where a mail is."""

    WAITING = "waiting", _("Waits to be sent")
    SENT = "sent", _("Sent")
    DROPPED = "dropped", _("Not sent")
    GIVEN_UP = "given_up", _("Given up")


class Why(models.TextChoices):
    """Why a mail was not sent."""

    ANSWERED = "answered", _("It was answered in the meantime.")
    NOT_ALLOWED = "not_allowed", _("The person may not see it, or not answer it, any more.")
    NOT_WANTED = "not_wanted", _("The person does not want such mail any more.")
    REFUSED = "refused", _("The mail server refuses this address or this mail for good.")
    NO_SERVER = "no_server", _("The mail server did not take it, however often it was tried.")


class Mail(models.Model):
    """One event told to one person: rows are made once, and end once, with a reason where the mail was not sent.

    `due_at` is when it is due, empty once it has ended; a worker that takes it moves it by one lease, so that another takes over
    what a killed one had. `message_id` stays the same however often it is sent. What is told is read when it is sent.
    """

    event_id = models.BigIntegerField()
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("person")
    )
    kind = models.CharField(_("kind"), max_length=20, choices=Kind)
    object_id = models.CharField(max_length=64)
    message_id = models.CharField(max_length=250, unique=True)
    status = models.CharField(_("state"), max_length=10, choices=Status, default=Status.WAITING)
    reason = models.CharField(_("why"), max_length=20, choices=Why, blank=True, default="")
    error = models.CharField(_("last error"), max_length=300, blank=True, default="")
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"))
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    class Meta:
        verbose_name = _("mail")
        verbose_name_plural = _("mails")
        ordering = ["-created_at", "-pk"]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(status=Status.WAITING.value), name="notifications_mail_due"),
            models.Index(fields=["created_at"], name="notifications_mail_created"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event_id", "person"], name="notifications_mail_once"),
            models.CheckConstraint(
                condition=Q(status=Status.WAITING.value, due_at__isnull=False, ended_at__isnull=True)
                | (~Q(status=Status.WAITING.value) & Q(due_at__isnull=True, ended_at__isnull=False)),
                name="notifications_mail_due_or_ended",
            ),
        ]

    def __str__(self) -> str:
        return self.message_id
