"""What people say about themselves: preferences."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from ui.preferences import Density, Theme

LANGUAGES = [("", _("As the browser asks")), ("en", "English"), ("ja", "日本語")]
THEMES = [("", _("Same as the system")), (Theme.LIGHT.value, _("Light")), (Theme.DARK.value, _("Dark"))]
DENSITIES = [("", _("Comfortable")), (Density.COMPACT.value, _("Compact"))]


class PreferencesForm(forms.Form):
    """Everything a person can prefer. A field that was not sent stays as it is (the menus of the top bar send one)."""

    language = forms.ChoiceField(label=_("Language"), choices=LANGUAGES, required=False)
    time_zone = forms.ChoiceField(label=_("Time zone"), choices=[], required=False)
    theme = forms.ChoiceField(label=_("Theme"), choices=THEMES, required=False)
    density = forms.ChoiceField(label=_("Density of lists"), choices=DENSITIES, required=False)

    def __init__(self, data: Any = None, *, initial: Any = None) -> None:
        super().__init__(data, initial=initial)
        zones = self.fields["time_zone"]
        assert isinstance(zones, forms.ChoiceField)
        zones.choices = [("", _("As the browser tells")), *((name, name) for name in _zones())]

    @property
    def sent(self) -> dict[str, str]:
        """What was sent, by field, of a valid form."""
        return {name: str(self.cleaned_data[name]) for name in self.fields if name in self.data}


def _zones() -> list[str]:
    """The places of the time zone database, and the portal's own zone."""
    places = {
        name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
    }
    return sorted(places | {"UTC", settings.TIME_ZONE})
