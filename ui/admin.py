"""What admin pages share."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest


class LookOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Rows to look at: nobody adds, changes or deletes them here."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 (the admin's signature)
        """No."""
        return False

    def has_change_permission(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        obj: Any = None,  # noqa: ARG002 (the admin's signature)
    ) -> bool:
        """No."""
        return False

    def has_delete_permission(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        obj: Any = None,  # noqa: ARG002 (the admin's signature)
    ) -> bool:
        """No."""
        return False


def by_whom(event: Any) -> str:
    """The user id and door that a change was recorded with, as text; empty for the portal itself."""
    metadata = event.pgh_context.metadata if event.pgh_context else {}
    return " ".join(str(metadata[name]) for name in ("user", "source", "file", "reason") if metadata.get(name))
