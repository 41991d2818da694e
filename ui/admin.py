"""What admin pages share: the site, its rule about secrets and look-ups, and pages to look at only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.filters import ListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured, ValidationError
from django.db.models import ForeignKey, Model
from django.forms import ModelChoiceField
from django.http import HttpRequest

# A field whose name has one of these words holds what signs somebody in.
SECRET_WORDS = ("password", "session_key", "session_data", "secret", "token", "credential", "private_key", "api_key")
# What the filters beside a list put into its address: Django's own ones use no others.
FILTER_LOOKUPS = ("", "__exact", "__isnull", "__in", "__gte", "__lt", "__isempty")
DATE_LOOKUPS = ("__year", "__month", "__day", "__gte", "__lt")


def is_secret(path: str) -> bool:
    """Whether a look-up path (`user__password`, `^session_key`) meets a secret on its way."""
    return any(word in path.lower() for word in SECRET_WORDS)


class KnownRowSelect(AutocompleteSelect):
    """Django's widget looks up whatever was sent when it shows a form again. Here a value that is not an id selects nothing."""

    def optgroups(self, name: str, value: Sequence[str], attrs: Any = None) -> Any:
        """The rows that are chosen."""
        return super().optgroups(name, [one for one in value if self._can_be_an_id(one)], attrs)

    def _can_be_an_id(self, text: str) -> bool:
        try:
            self.field.remote_field.model._meta.pk.clean(text, None)
        except (ValidationError, ValueError, OverflowError):
            return text in {"", "None"}
        return True


class KnownRows:
    """An admin class whose completed fields take any text that is sent, and say that it is no row."""

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any]:
        """Django's field; with KnownRowSelect where the field completes what is typed."""
        if db_field.name in self.get_autocomplete_fields(request):  # type: ignore[attr-defined]  # of ModelAdmin
            kwargs["widget"] = KnownRowSelect(db_field, self.admin_site, using=kwargs.get("using"))  # type: ignore[attr-defined]  # of ModelAdmin
        field: ModelChoiceField[Any] = super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]  # of ModelAdmin
        return field


class DatedChangeList(ChangeList):
    """Django's list reads the year of a date hierarchy without checking that it is a possible year; this one checks."""

    def get_filters(self, request: HttpRequest) -> Any:
        """The filters of the address; a year that is none is a bad parameter like any other."""
        try:
            return super().get_filters(request)
        except OverflowError as error:
            raise IncorrectLookupParameters(error) from error


class GuardedAdmin(KnownRows, admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """The rule for every admin class: look-ups are those of its filters, and no page shows a secret.

    `PortalAdminSite` puts it before every class that is registered, a library's too. A look-up that no filter asks
    for is answered 400: its answers would tell a field letter by letter, whether a page shows it or not.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:  # noqa: ARG002 (the admin's signature)
        """Only what the filters and the date hierarchy of this list ask for."""
        return lookup in set(self._lookups(request))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The class's own list, which takes any year."""
        own = super().get_changelist(request, **kwargs)
        return type(own.__name__, (DatedChangeList, own), {"__doc__": own.__doc__})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The row; an empty `_to_field` is none (Django would look for a field without a name)."""
        return super().get_object(request, object_id, from_field or None)

    def _lookups(self, request: HttpRequest | None) -> Iterator[str]:
        if self.date_hierarchy:
            yield from (f"{self.date_hierarchy}{end}" for end in DATE_LOOKUPS)
        for item in self.list_filter if request is None else self.get_list_filter(request):
            if isinstance(item, type) and issubclass(item, ListFilter):
                yield str(getattr(item, "parameter_name", ""))
                continue
            path = item if isinstance(item, str) else str(item[0])  # type: ignore[index]  # a field, or a field and its filter
            yield from (f"{path}{end}" for end in FILTER_LOOKUPS)
            target = _target_of(self.model, path)
            if target:
                yield f"{path}__{target}__exact"

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, str | list[str]]:  # noqa: ARG002 (Django's signature)
        """A form begins empty, whatever its address says: Django looks every value up as if it were a key."""
        return {}

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """No form holds a secret; the user's own form has Django's field that shows none and leads to a new password."""
        names = [field.name for field in self.opts.get_fields() if is_secret(field.name)]
        if self._leads_to_a_new_password(request, obj):
            names.remove("password")
        return [*(super().get_exclude(request, obj) or ()), *names]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The same for fields that a class names itself."""
        hidden = set(self.get_exclude(request, obj))
        kept = [(title, _without(options, hidden)) for title, options in super().get_fieldsets(request, obj)]
        return [(title, options) for title, options in kept if options["fields"]]

    def _leads_to_a_new_password(self, request: HttpRequest, obj: Any) -> bool:
        is_user = self.opts.label_lower == "auth.user"
        return is_user and (obj is None or self.has_change_permission(request, obj))


def _without(options: Any, hidden: set[str]) -> dict[str, Any]:
    """A group of fields without those that are hidden."""
    rows = [
        tuple(name for name in row if name not in hidden) if isinstance(row, (list, tuple)) else row
        for row in options["fields"]
    ]
    return {**options, "fields": [row for row in rows if row and not (isinstance(row, str) and row in hidden)]}


def _target_of(model: type[Model], path: str) -> str:
    """The field that the last relation of a path refers to; empty where the path ends at a plain field."""
    target = ""
    for part in path.split("__"):
        try:
            field = model._meta.get_field(part)
        except FieldDoesNotExist:
            return ""
        if not field.is_relation or field.related_model is None or isinstance(field.related_model, str):
            return ""
        model = field.related_model
        target = model._meta.pk.name
    return target


class PortalAdminSite(admin.AdminSite):
    """Django's admin site with our rule before every class."""

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[admin.ModelAdmin[Any]] | None = None,
        **options: Any,
    ) -> None:
        """Register it under the rule. Raises ImproperlyConfigured where it lists, searches or filters a secret."""
        given = admin_class or admin.ModelAdmin
        shown = [*given.list_display, *given.list_filter, *given.search_fields, *(given.ordering or ())]
        named = [
            item
            for part in shown
            for item in ([part] if isinstance(part, str) else part if isinstance(part, tuple) else ())
        ]
        secrets = [item for item in named if isinstance(item, str) and is_secret(item)]
        if secrets:
            raise ImproperlyConfigured(f"{given.__name__} shows, searches or filters a secret: {', '.join(secrets)}.")
        guarded = (
            given
            if issubclass(given, GuardedAdmin)
            else type(given.__name__, (GuardedAdmin, given), {"__module__": given.__module__, "__doc__": given.__doc__})
        )
        super().register(model_or_iterable, guarded, **options)


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
