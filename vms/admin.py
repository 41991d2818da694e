"""The inventory in Django's admin: the image catalogue, connections, groups, VMs to look at, role assignments."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from audit.services import Act, record
from audit.tags import Tag
from connectors.registry import KINDS
from ui.admin import LookOnlyAdmin, by_whom
from vms.forms.connections import form_for
from vms.models import (
    Connection,
    FactsEvent,
    ImageCatalogEntry,
    ResourceGroup,
    RoleAssignment,
    RoleEvent,
    SettingsEvent,
    Subscription,
    VirtualMachine,
    VirtualMachineQuerySet,
)
from vms.selectors import search_by_name
from vms.services.connections import save_connection
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers


@admin.register(ImageCatalogEntry)
class ImageCatalogEntryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """The images that can be hotpatched. What changes here changes the VMs made from them at once."""

    list_display = [
        "sku",
        "publisher",
        "offer",
        "product_line",
        "is_server_core",
        "has_hotpatch_by_default",
    ]
    list_filter = [
        "product_line",
        "is_server_core",
        "has_hotpatch_by_default",
        "publisher",
        "offer",
    ]
    search_fields = ["publisher", "offer", "sku", "note"]
    ordering = ["publisher", "offer", "sku"]

    def save_model(self, request: HttpRequest, obj: ImageCatalogEntry, form: ModelForm[Any], change: bool) -> None:
        """Save, and let the VMs of the image as it was and as it is follow."""
        before = [entry.facts for entry in ImageCatalogEntry.objects.filter(pk=obj.pk)]
        super().save_model(request, obj, form, change)
        refresh_hotpatch_statuses(images=[*before, obj.facts])

    def delete_model(self, request: HttpRequest, obj: ImageCatalogEntry) -> None:
        """Delete, and let the VMs of the image follow."""
        before = obj.facts
        super().delete_model(request, obj)
        refresh_hotpatch_statuses(images=[before])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ImageCatalogEntry]) -> None:
        """Delete, and let the VMs of these images follow."""
        before = [entry.facts for entry in queryset]
        super().delete_queryset(request, queryset)
        refresh_hotpatch_statuses(images=before)


@admin.register(Connection)
class ConnectionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Where and how VMs are reached."""

    list_display = [
        "name",
        "kind",
        "platform",
        "max_in_flight",
        "paused_until",
        "is_usable",
    ]
    list_filter = ["kind", "platform"]
    search_fields = ["name"]

    @admin.display(boolean=True, description=_("usable"))
    def is_usable(self, connection: Connection) -> bool:
        """Whether a connector can be made of it; its page says what is wrong."""
        return connection.trouble is None

    def get_form(
        self,
        request: HttpRequest,
        obj: Connection | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> type[ModelForm[Any]]:
        """The form with the fields of the kind that is chosen."""
        kind = request.POST.get("kind") or (obj.kind if obj else next(iter(KINDS)))
        return super().get_form(request, obj, change, **{"form": form_for(kind), **kwargs})

    def save_model(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        obj: Connection,
        form: ModelForm[Any],  # noqa: ARG002 (the admin's signature)
        change: bool,  # noqa: ARG002 (the admin's signature)
    ) -> None:
        """Save, and let the connection's VMs follow a changed platform."""
        save_connection(connection=obj)


@admin.register(Subscription)
class SubscriptionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Imports know subscriptions by id only; here they get their names."""

    list_display = ["name", "subscription_id"]
    search_fields = ["name", "subscription_id"]


@admin.register(ResourceGroup)
class ResourceGroupAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Resource groups, made by imports."""

    list_display = ["name", "subscription"]
    list_filter = ["subscription"]
    list_select_related = ["subscription"]
    search_fields = ["name"]
    autocomplete_fields = ["subscription"]
    show_full_result_count = False


@admin.register(VirtualMachine)
class VirtualMachineAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """VMs to look at, to move to another connection, and to delete; their facts come from imports."""

    list_display = [
        "name",
        "connection",
        "resource_group",
        "location",
        "update_status",
        "hotpatch_status",
    ]
    list_filter = ["connection", "update_status", "hotpatch_status", "hotpatch_track", "patcher"]
    list_select_related = ["connection", "resource_group"]
    search_fields = ["name"]
    show_full_result_count = False
    list_per_page = 50

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        queryset: QuerySet[VirtualMachine],
        search_term: str,
    ) -> tuple[QuerySet[VirtualMachine], bool]:
        """The list page's search: the admin's own would read a million rows."""
        return search_by_name(cast(VirtualMachineQuerySet, queryset), search_term), False

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 (the admin's signature)
        """VMs are imported."""
        return False

    def get_readonly_fields(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        obj: VirtualMachine | None = None,  # noqa: ARG002 (the admin's signature)
    ) -> list[str]:
        """Everything but the connection."""
        return [field.name for field in VirtualMachine._meta.concrete_fields if field.name != "connection"]

    def save_model(
        self,
        request: HttpRequest,  # noqa: ARG002 (the admin's signature)
        obj: VirtualMachine,
        form: ModelForm[Any],  # noqa: ARG002 (the admin's signature)
        change: bool,  # noqa: ARG002 (the admin's signature)
    ) -> None:
        """Move the VM, and let its statuses follow the other connection's platform."""
        obj.save(update_fields=["connection"])
        record(acts=[Act(Tag.RECORD_CHANGE, **obj.where)])
        refresh_hotpatch_statuses(vm_ids=[obj.pk])
        refresh_patchers(among=VirtualMachine.objects.filter(pk=obj.pk))

    def delete_model(self, request: HttpRequest, obj: VirtualMachine) -> None:
        """Delete, and keep that it was there."""
        record(acts=[Act(Tag.RECORD_REMOVE, **obj.where)])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[VirtualMachine]) -> None:
        """Delete, and keep that they were there."""
        record(acts=[Act(Tag.RECORD_REMOVE, **vm.where) for vm in queryset])
        super().delete_queryset(request, queryset)


@admin.register(RoleAssignment)
class RoleAssignmentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Who may do what where."""

    list_display = ["__str__", "role", "scope", "subscription", "resource_group", "vm"]
    list_filter = ["role", "scope"]
    list_select_related = ["user", "group", "subscription", "resource_group", "vm"]
    search_fields = ["user__username", "group__name"]
    autocomplete_fields = ["user", "group", "subscription", "resource_group", "vm"]


class EventAdmin(LookOnlyAdmin):
    """What triggers have kept: when, what, by whom."""

    list_filter = ["pgh_label"]
    list_select_related = ["pgh_context"]
    ordering = ["-pgh_id"]

    @admin.display(description=_("by"))
    def by(self, event: Any) -> str:
        """Who, through which door."""
        return by_whom(event)


@admin.register(FactsEvent)
class FactsEventAdmin(EventAdmin):
    """VMs that were added, changed (with what they were before) and removed."""

    list_display = ["pgh_created_at", "pgh_label", "name", "connection_id", "location", "by"]
    search_fields = ["name__istartswith"]


@admin.register(SettingsEvent)
class SettingsEventAdmin(EventAdmin):
    """Settings as they were before a change."""

    list_display = ["pgh_created_at", "pgh_obj_id", "patch_mode", "enable_hotpatching", "reboot_setting", "by"]


@admin.register(RoleEvent)
class RoleEventAdmin(EventAdmin):
    """Roles that were given, changed and taken back."""

    list_display = ["pgh_created_at", "pgh_label", "user_id", "group_id", "role", "scope", "by"]
    list_filter = ["pgh_label", "role", "scope"]
