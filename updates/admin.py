"""The catalogue in Django's admin: patches and releases, with where they were read. The rest is there to look at."""

from __future__ import annotations

from django.contrib import admin

from updates.models import Patch, Release


@admin.register(Release)
class ReleaseAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Monthly and out-of-band releases; import JSON with `manage.py import_releases`."""

    list_display = [
        "product_line",
        "month",
        "type",
        "is_planned",
        "kb_number",
        "build",
        "released_on",
        "status",
        "evidence",
    ]
    list_filter = ["product_line", "type", "status", "evidence"]
    search_fields = ["kb_number", "build", "source", "note"]
    date_hierarchy = "released_on"
    autocomplete_fields = ["patch"]
    list_select_related = ["patch"]


@admin.register(Patch)
class PatchAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """Every update that was recorded or that an assessment reported."""

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
    readonly_fields = ["key"]
