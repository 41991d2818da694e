"""What admin pages share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey
from django.forms import ModelChoiceField
from django.http import HttpRequest


class KnownRowSelect(AutocompleteSelect):
    """Django's, which looks up whatever was sent when it shows a form again: what is no id at all chooses nothing here."""

    def optgroups(self, name: str, value: Sequence[str], attrs: Any = None) -> Any:
        """The rows that are chosen."""
        return super().optgroups(name, [one for one in value if self._can_be_an_id(one)], attrs)

    def _can_be_an_id(self, text: str) -> bool:
        try:
            self.field.remote_field.model._meta.pk.clean(text, None)
        except (ValidationError, ValueError, OverflowError):
            return text in {"", "None"}
        return True


class KnownRowsMixin:
    """An admin page whose completed fields take any text that is sent, and say that it is no row."""

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any]:
        """Django's field, with our widget where it completes what is typed."""
        if db_field.name in self.get_autocomplete_fields(request):  # type: ignore[attr-defined]  # of ModelAdmin
            kwargs["widget"] = KnownRowSelect(db_field, self.admin_site, using=kwargs.get("using"))  # type: ignore[attr-defined]  # of ModelAdmin
        field: ModelChoiceField[Any] = super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]  # of ModelAdmin
        return field


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
