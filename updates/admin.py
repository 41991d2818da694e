"""The catalogue in Django's admin: patches and releases, with where they were read; and operations to look at."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pghistory
from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ui.admin import LookOnlyAdmin
from ui.templatetags.portal import when
from updates.forms.catalogue import CatalogueImportForm
from updates.models import PATCH_FACTS, RELEASE_FACTS, Operation, Patch, Release
from updates.selectors.corrections import corrections_of
from updates.services.catalogue import CatalogueFileError, CatalogueReport, attach_patch, import_catalogue
from updates.texts import OTHER_FIELD_HELP, RELEASE_FIELD_HELP
from vms.models import VirtualMachine
from vms.selectors import search_by_name


class CorrectionForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic at run time
    """A row of the catalogue; a correction takes its reason."""

    reason = forms.CharField(
        label=_("Reason of the correction"),
        max_length=500,
        required=False,
        help_text=_("Kept with the previous values. Needed when a recorded row is changed."),
    )

    def clean(self) -> dict[str, Any]:
        """No correction without a reason."""
        cleaned = super().clean() or self.cleaned_data
        is_correction = self.instance.pk and any(name != "reason" for name in self.changed_data)
        if is_correction and not str(cleaned.get("reason", "")).strip():
            self.add_error("reason", _("Say why the row is corrected, with the source if there is one."))
        return cleaned


class CatalogueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """What patches and releases share: import with a dry run, and corrections that keep what was said before."""

    form = CorrectionForm
    facts: tuple[str, ...] = ()
    change_list_template = "admin/updates/catalogue_change_list.html"
    readonly_fields = ["corrections_made"]

    def get_urls(self) -> list[URLPattern]:
        """The import's address before the row addresses."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_import"
        return [path("import/", self.admin_site.admin_view(self.import_view), name=name), *super().get_urls()]

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """A file, a dry run if asked for, and what became of every row."""
        if not (self.has_add_permission(request) and self.has_change_permission(request)):
            raise PermissionDenied
        form = CatalogueImportForm(request.POST or None, request.FILES or None)
        report = self._imported(form) if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Import into the catalogue"),
            "form": form,
            "report": report,
            "release_fields": RELEASE_FIELD_HELP,
            "other_fields": OTHER_FIELD_HELP,
            "list_url": reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"),
        }
        return render(request, "admin/updates/import.html", context, status=422 if form.errors else 200)

    def _imported(self, form: CatalogueImportForm) -> CatalogueReport | None:
        """Import what the valid form holds. None: the file cannot be used, and the form's errors say why."""
        upload = form.cleaned_data["file"]
        try:
            return import_catalogue(
                data=upload.read(),
                file_name=upload.name or "",
                is_dry_run=form.cleaned_data["is_dry_run"],
                now=timezone.now(),
            )
        except CatalogueFileError as error:
            form.add_error("file", str(error))
            return None

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool) -> None:
        """Save, with the reason beside what the row said before."""
        with pghistory.context(source="admin", reason=form.cleaned_data.get("reason", "")):
            super().save_model(request, obj, form, change)

    @admin.display(description=_("Corrections"))
    def corrections_made(self, obj: Any) -> SafeString | str:
        """What the row said before, when, by whom and why."""
        if obj.pk is None:
            return "–"
        lines = (
            (when(c.at), c.by or "–", c.why or "–", format_html_join("; ", "{}: {} → {}", c.changes))
            for c in corrections_of(obj, self.facts)
        )
        listed = format_html_join("", "<li>{} · {} · {}<br>{}</li>", lines)
        return format_html("<ul>{}</ul>", listed) if listed else "–"


@admin.register(Release)
class ReleaseAdmin(CatalogueAdmin):
    """Monthly and out-of-band releases."""

    facts = RELEASE_FACTS
    list_display = [
        "product_line",
        "month",
        "type",
        "is_planned",
        "kb_number",
        "build",
        "released_on",
        "status",
        "channel",
        "audience",
        "is_type_confirmed",
        "evidence",
    ]
    list_filter = ["product_line", "type", "status", "is_planned", "is_type_confirmed", "channel", "evidence"]
    readonly_fields = ["corrections_made", "confirmed_by", "confirmed_at"]
    search_fields = ["kb_number", "build", "source", "note"]
    date_hierarchy = "released_on"
    exclude = ["patch"]

    def save_model(self, request: HttpRequest, obj: Release, form: ModelForm[Any], change: bool) -> None:
        """Save; who ticked that the type is confirmed is kept, and the patch of the KB follows."""
        if "is_type_confirmed" in form.changed_data:
            is_confirmed = obj.is_type_confirmed
            obj.confirmed_by = request.user.get_username() if is_confirmed else ""
            obj.confirmed_at = timezone.now() if is_confirmed else None
        super().save_model(request, obj, form, change)
        attach_patch(release=obj)


@admin.register(Patch)
class PatchAdmin(CatalogueAdmin):
    """Every update that was recorded or that an assessment reported."""

    facts = PATCH_FACTS
    list_display = [
        "title",
        "kb_number",
        "product_line",
        "classification",
        "reboot_behavior",
        "version",
        "published_on",
        "evidence",
    ]
    list_filter = ["product_line", "classification", "reboot_behavior", "release_type"]
    search_fields = ["kb_number", "title", "update_id"]
    readonly_fields = ["key", "corrections_made"]


@admin.register(Operation)
class OperationAdmin(LookOnlyAdmin):
    """Assessments and installations to look at; their state has one writer, and it is not here."""

    list_display = [
        "id",
        "vm",
        "kind",
        "state",
        "error_code",
        "verification",
        "requested_by",
        "created_at",
        "finished_at",
    ]
    list_filter = ["kind", "state", "verification", "reboot_status"]
    list_select_related = ["vm", "requested_by"]
    ordering = ["-created_at"]
    search_fields = ["id"]
    search_help_text = _("The activity id, or words of the machine's name.")

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        queryset: QuerySet[Operation],
        search_term: str,
    ) -> tuple[QuerySet[Operation], bool]:
        """By the activity id, else by the names of the first machines that match."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            names = search_by_name(VirtualMachine.objects.order_by(), term).values("pk")[:1000]
            return queryset.filter(vm__in=names), False
