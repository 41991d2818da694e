"""Mails in Django's admin, to look at: which wait, which were not sent, and why."""

from __future__ import annotations

from django.contrib import admin

from notifications.models import Mail
from ui.admin import LookOnlyAdmin


@admin.register(Mail)
class MailAdmin(LookOnlyAdmin):
    """What became of each mail, with the mail server's last answer."""

    list_display = ["created_at", "person", "kind", "status", "reason", "attempts", "due_at", "error"]
    list_filter = ["status", "reason", "kind"]
    list_select_related = ["person"]
    ordering = ["-created_at", "-pk"]
