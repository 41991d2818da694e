"""An act on many machines is confirmed by typing their number."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    pass


class CountForm(forms.Form):
    """An act on all machines that match is confirmed by typing their number."""

    confirm = forms.CharField(
        label=_("Number of machines"),
        max_length=20,
        widget=forms.TextInput(attrs={"autocomplete": "off", "inputmode": "numeric"}),
    )

    def __init__(self, data: Any = None, *, count: int) -> None:
        super().__init__(data)
        self.count = count
        self.fields["confirm"].help_text = _("Type %(count)s to confirm.") % {"count": count}

    def clean_confirm(self) -> str:
        """The number as it was shown; separators and full-width digits may be typed, too."""
        typed = str(self.cleaned_data["confirm"])
        if not self.count or number_in(typed) != str(self.count):
            raise forms.ValidationError(_("This is not the number of the machines."))
        return typed


def number_in(text: str) -> str:
    """A typed number without separators and in ASCII digits."""
    return re.sub(r"[\s,.'’]", "", unicodedata.normalize("NFKC", text)).lstrip("0")
