"""What people say about themselves, and what they ask the record for."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from people.selectors.activity import Asked
from ui.dates import DAY_VALIDATORS
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


def _day() -> forms.DateInput:
    return forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class ActivityForm(forms.Form):
    """What the Activity page is narrowed down by. What cannot be read is refused: nothing is shown in its place."""

    person = forms.CharField(label=_("Who"), max_length=150, required=False)
    object = forms.CharField(label=_("Object or machine"), max_length=200, required=False)
    tag = forms.ChoiceField(label=_("What"), choices=[], required=False)
    since = forms.DateField(label=_("From"), required=False, validators=DAY_VALIDATORS, widget=_day())
    until = forms.DateField(label=_("To"), required=False, validators=DAY_VALIDATORS, widget=_day())

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        tags = self.fields["tag"]
        assert isinstance(tags, forms.ChoiceField)
        tags.choices = tag_choices()

    def clean(self) -> dict[str, Any]:
        """The first day is not after the last."""
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since and until and since > until:
            self.add_error("until", _("The last day is before the first."))
        return cleaned

    @property
    def asked(self) -> Asked:
        """What a valid form asks for; its days are days of the reader's clock, the last one included."""
        values = self.cleaned_data
        return Asked(
            person=values["person"].strip(),
            thing=values["object"].strip(),
            tags=tags_of(values["tag"]),
            since=_midnight(values["since"]),
            until=_midnight(values["until"] and values["until"] + timedelta(days=1)),
        )

    @property
    def filters(self) -> dict[str, str]:
        """What a valid form asks for as it was typed, for the record of an export."""
        return {name: str(value) for name, value in self.cleaned_data.items() if value}


def _midnight(day: date | None) -> datetime | None:
    return timezone.make_aware(datetime.combine(day, time())) if day else None


def tags_of(choice: str) -> tuple[Tag, ...]:
    """The tags that a choice means: one, or all of a subject; none for an empty choice."""
    if not choice:
        return ()
    return tuple(tag for tag in Tag if tag.value == choice or tag.value.startswith(f"{choice}:"))


SUBJECTS = {
    "machine": _("Machines"),
    "fleet": _("Fleet"),
    "place": _("Subscriptions and resource groups"),
    "connection": _("Connections"),
    "catalogue": _("Catalog"),
    "people": _("People and roles"),
    "portal": _("Portal"),
}


def tag_choices() -> list[Any]:
    """All acts, and for each subject all of its acts and each one."""
    choices: list[Any] = [("", _("Everything"))]
    for subject, label in SUBJECTS.items():
        acts = [(tag.value, tag.label) for tag in Tag if tag.value.startswith(f"{subject}:")]
        choices.append((label, [(subject, format_lazy("{}: {}", label, _("everything"))), *acts]))
    return choices
