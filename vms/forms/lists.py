"""What a person says about the list: its columns, and the views that are kept of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from vms.choices import COLUMNS, Column
from vms.models import SavedView

MAX_PLACE = len(COLUMNS)
_IDS = r"^([0-9]{1,18}(,[0-9]{1,18}){0,199})?$"


class ColumnsForm(forms.Form):
    """A place for each column that is shown, from the left; without one it is not shown. The name always comes first."""

    def __init__(self, data: Any = None, *, shown: tuple[Column, ...] = ()) -> None:
        places = {column.name: place for place, column in enumerate(shown, start=1)}
        super().__init__(data, initial=places)
        for name, column in COLUMNS.items():
            self.fields[name] = forms.IntegerField(label=column.label, required=False, min_value=1, max_value=MAX_PLACE)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of a valid form, from the left; those of one place in the order of the form."""
        places = {name: place for name, place in self.cleaned_data.items() if place is not None}
        return tuple(sorted(places, key=places.__getitem__))


class ViewForm(forms.Form):
    """The name of a view, and whether everybody sees it: only who may share is asked."""

    name = forms.CharField(label=_("Name of the view"), max_length=60)
    is_shared = forms.BooleanField(
        label=_("Shared: everybody can open it, and nobody else can change it"), required=False
    )

    def __init__(self, data: Any = None, *, may_share: bool, view: SavedView | None = None) -> None:
        super().__init__(data, initial={"name": view.name, "is_shared": view.is_shared} if view else None)
        if not (may_share or (view and view.is_shared)):
            del self.fields["is_shared"]

    def say_name_is_taken(self) -> None:
        """The person has a view of this name."""
        self.add_error("name", _("You have a view of this name. Choose another name, or remove that view first."))


class Go(StrEnum):
    """What is done once the ticks of a page are kept."""

    KEEP = "keep"
    CLEAR = "clear"
    MATCH = "match"  # tick all that match
    NEXT = "next"
    PREVIOUS = "previous"
    ASSESSMENT = "assessment"
    INSTALLATION = "installation"
    ROLLBACK = "rollback"
    RESTART = "restart"
    ATTACH = "attach"  # to a maintenance configuration
    SETTINGS = "settings"
    INCLUDE = "include"  # install the KB that the list is narrowed to


class TicksForm(forms.Form):
    """The ticks of a page of the list: which machines could be ticked there, which are, and what is done next.

    `address` is the list's own, without its path; `next` and `previous` are the places of its other pages.
    """

    go = forms.ChoiceField(choices=[(go.value, go.value) for go in Go])
    shown = forms.RegexField(_IDS, required=False)
    address = forms.CharField(max_length=8_000, required=False, strip=False)
    next = forms.CharField(max_length=2_000, required=False, strip=False)
    previous = forms.CharField(max_length=2_000, required=False, strip=False)

    def clean(self) -> dict[str, Any]:
        """What is ticked is a machine by its id."""
        ticked = self.data.getlist("vm") if isinstance(self.data, QueryDict) else []
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in ticked):
            self.add_error(None, "vm")
        self.cleaned_data["ticked"] = {int(text) for text in ticked} if not self.errors else set()
        return self.cleaned_data

    @property
    def what(self) -> Go:
        """What a valid form asks for."""
        return Go(self.cleaned_data["go"])

    @property
    def shown_ids(self) -> set[int]:
        """The machines of the page that could be ticked."""
        return {int(text) for text in self.cleaned_data["shown"].split(",") if text}

    @property
    def asked(self) -> QueryDict:
        """The address of the list, as it was."""
        return QueryDict(self.cleaned_data["address"])

    @property
    def turned(self) -> str:
        """The address of the list; of its next or previous page, where that is asked for."""
        query = self.asked.copy()
        if self.what in {Go.NEXT, Go.PREVIOUS} and self.cleaned_data[self.what.value]:
            query["cursor"] = self.cleaned_data[self.what.value]
        return query.urlencode()
