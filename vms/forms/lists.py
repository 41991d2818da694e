"""What a person says about the list: its columns, and the views that are kept of it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from vms.choices import COLUMNS, Column
from vms.models import SavedView

MAX_PLACE = len(COLUMNS)


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
