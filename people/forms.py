"""What people say about themselves, what they ask the record for, and which roles they give."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from people.models import MailWishes
from people.selectors.access import Asked as AskedRoles
from people.selectors.access import machines_named, places_named, principal_named
from people.selectors.activity import Asked
from ui.dates import DAY_VALIDATORS
from ui.preferences import Density, Theme
from vms.choices import ROLES, SCOPES, Role, Scope
from vms.models import Grants, ResourceGroup, Subscription, VirtualMachine
from vms.selectors import Held

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


class MailForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic at run time
    """Of what a person wants to be told by mail, and where."""

    class Meta:
        model = MailWishes
        fields = ["address", "rollouts", "decisions", "bulk_requests"]

    def clean(self) -> dict[str, Any]:
        """Who wants mail says where to."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        wishes = [name for name in ("rollouts", "decisions", "bulk_requests") if cleaned.get(name)]
        if wishes and not cleaned.get("address") and "address" not in self.errors:
            self.add_error("address", _("Say where the mail goes."))
        return cleaned


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


# --- access ----------------------------------------------------------------------------------------------------------

PRINCIPALS = [("person", _("A person")), ("group", _("A group of people"))]
PLACE_LABELS = {
    Scope.SUBSCRIPTION: _("Subscription (name or id)"),
    Scope.RESOURCE_GROUP: _("Name of the resource group"),
    Scope.VM: _("Name of the virtual machine"),
}


class AccessForm(forms.Form):
    """What the list of roles is narrowed down by. What cannot be read is refused: nothing is shown in its place."""

    who = forms.CharField(label=_("Person or group"), max_length=150, required=False)
    role = forms.ChoiceField(label=_("Role"), choices=[("", _("All")), *ROLES], required=False)
    scope = forms.ChoiceField(label=_("Scope"), choices=[("", _("All")), *SCOPES], required=False)
    where = forms.CharField(label=_("Place"), max_length=200, required=False)

    @property
    def asked(self) -> AskedRoles:
        """What a valid form asks for."""
        values = self.cleaned_data
        return AskedRoles(values["who"].strip(), values["role"], values["scope"], values["where"].strip())


class GiveForm(forms.Form):
    """Who gets which role on a place of this kind; it has only the fields of that kind.

    `place_id` is asked for only where several places have the name. After `is_valid`: `to`, `role` and `on`.
    """

    scope = forms.ChoiceField(choices=[], widget=forms.HiddenInput)
    kind = forms.ChoiceField(
        label=_("Who gets the role"), choices=PRINCIPALS, widget=forms.RadioSelect, initial="person"
    )
    name = forms.CharField(label=_("User name, or name of the group"), max_length=150)
    role = forms.ChoiceField(label=_("Role"), choices=ROLES, widget=forms.RadioSelect, initial=Role.READER.value)
    place = forms.CharField(max_length=200)
    place_id = forms.ChoiceField(label=_("Which one"), choices=[])

    def __init__(self, data: Any, *, giver: User, scope: Scope) -> None:
        super().__init__(data, initial={"scope": scope.value})
        self._grants, self.kind_of_place = Grants.of(giver), scope
        asked = self.fields["scope"]
        assert isinstance(asked, forms.ChoiceField)
        asked.choices = [
            (scope.value, scope.value)
        ]  # what was sent for another kind of place is not meant for this one
        self._places: dict[str, Subscription | ResourceGroup | VirtualMachine] = {}
        if scope is Scope.EVERYTHING:
            del self.fields["place"]
        else:
            self.fields["place"].label = PLACE_LABELS[scope]
            self._offer(str((data or {}).get("place", "")).strip())
        if len(self._places) < 2:
            del self.fields["place_id"]

    def _offer(self, name: str) -> None:
        found = places_named(self._grants, self.kind_of_place, name) if name and len(name) <= 200 else []
        self._places = {str(place.pk): place for place in found}
        choice = self.fields["place_id"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [("", _("Choose")), *((pk, place_words(place)) for pk, place in self._places.items())]

    def clean_name(self) -> User | Group:
        """The active person or the group that is called so."""
        name, is_group = self.cleaned_data["name"].strip(), self.cleaned_data.get("kind") == "group"
        found = principal_named(name, is_group=is_group)
        if found is None:
            words = _("There is no group of this name.") if is_group else _("There is no active person of this name.")
            raise forms.ValidationError(words)
        return found

    def clean_place(self) -> str:
        """A name of something that the giver owns."""
        if not self._places:
            raise forms.ValidationError(_("Of what you own nothing is called so."))
        return str(self.cleaned_data["place"])

    @property
    def to(self) -> User | Group:
        """Who gets the role."""
        found: User | Group = self.cleaned_data["name"]
        return found

    @property
    def given(self) -> Role:
        """The role."""
        return Role(self.cleaned_data["role"])

    @property
    def on(self) -> Held:
        """Where; None: everything."""
        if self.kind_of_place is Scope.EVERYTHING:
            return None
        chosen = self.cleaned_data.get("place_id") or next(iter(self._places))
        return self._places[chosen]


def place_words(place: Held) -> str:
    """A place with what it lies in, so that two of one name are told apart."""
    if isinstance(place, VirtualMachine):
        return f"{place.name} · {place.resource_group.name} · {place.resource_group.subscription.name}"
    if isinstance(place, ResourceGroup):
        return f"{place.name} · {place.subscription.name}"
    return f"{place.name} · {place.subscription_id}" if place else str(dict(SCOPES)[Scope.EVERYTHING.value])


class AskForm(forms.Form):
    """What somebody can do on a machine: people ask for themselves, Owners of the machine for everybody.

    `vm_id` is asked for only where several machines have the name. After `is_valid`: `about` and `vm`.
    """

    person = forms.CharField(label=_("User name"), max_length=150)
    vm = forms.CharField(label=_("Name of the virtual machine"), max_length=200)
    vm_id = forms.ChoiceField(label=_("Which one"), choices=[])

    def __init__(self, data: Any, *, asker: User) -> None:
        super().__init__(data or None, initial={"person": asker.get_username()})
        self._asker, self._grants = asker, Grants.of(asker)
        name = str((data or {}).get("vm", "")).strip()
        found = machines_named(self._grants, name) if name and len(name) <= 200 else []
        self._vms = {str(vm.pk): vm for vm in found}
        choice = self.fields["vm_id"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [("", _("Choose")), *((pk, place_words(vm)) for pk, vm in self._vms.items())]
        if len(self._vms) < 2:
            del self.fields["vm_id"]

    def clean(self) -> dict[str, Any]:
        """The machine that is named, and a person about whom the reader may ask there."""
        cleaned = super().clean() or self.cleaned_data
        if "vm" in cleaned and not self._vms:
            self.add_error("vm", _("No machine that you may see is called so."))
        if self.errors:
            return cleaned
        name, me = cleaned["person"].strip(), self._asker
        is_about_me = name.casefold() == me.get_username().casefold()
        if not is_about_me and Role.OWNER not in self._grants.roles_on(self.chosen):
            self.add_error("person", _("Only an Owner of the machine may ask what others can do there."))
            return cleaned
        about = me if is_about_me else principal_named(name, is_group=False)
        if about is None:
            self.add_error("person", _("There is no active person of this name."))
        cleaned["about"] = about
        return cleaned

    @property
    def about(self) -> User:
        """The person who is asked about."""
        person: User = self.cleaned_data["about"]
        return person

    @property
    def chosen(self) -> VirtualMachine:
        """The machine."""
        return self._vms[self.cleaned_data.get("vm_id") or next(iter(self._vms))]
