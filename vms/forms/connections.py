"""Where and how machines are reached, and what simulated ones suffer.

The form of a connection has what every connection has, and the fields of its kind's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from django import forms
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from connectors.configuration import ConfigurationError, FieldSpec, FieldType, Wrong, day_of, fields_of, read, to_json
from connectors.registry import KINDS
from connectors.simulator import Misfortune
from patching.kb_numbers import KbNumbersError, parse_kb_numbers
from ui.dates import DayField
from vms.choices import MISFORTUNES
from vms.models import Connection
from vms.texts import CONFIG_FIELDS, CONFIG_PROBLEMS

_EVERY = ("name", "kind", "platform")
_LIMITS = ("max_in_flight", "starts_per_minute", "is_patching_automatically")
# The kind whose fields the form had when it was shown: who chooses another gets that one's fields to look at first.
SHOWN_KIND = "shown_kind"


class ConnectionForm(forms.ModelForm):  # type: ignore[type-arg]  # no generic at run time
    """Where and how machines are reached. `form_for` makes the form of a kind from it."""

    fields_of_kind = ""  # the kind whose configuration is asked for; empty: nobody knows it

    class Meta:
        model = Connection
        fields = (*_EVERY, *_LIMITS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.config if isinstance(self.instance.config, Mapping) else {}
        for spec in self._specs():
            value = stored.get(spec.name, spec.default) if self.instance.kind == self.fields_of_kind else spec.default
            self.initial.setdefault(spec.name, day_of(value) or value if spec.holds is FieldType.DAY else value)
        if SHOWN_KIND in self.fields:
            self.initial[SHOWN_KIND] = self.fields_of_kind
        self.order_fields([*_EVERY, *(spec.name for spec in self._specs()), *_LIMITS])

    def _specs(self) -> tuple[FieldSpec, ...]:
        return fields_of(KINDS[self.fields_of_kind].configuration) if self.fields_of_kind else ()

    def clean(self) -> dict[str, Any]:
        """Judge the configuration as it will be judged when the connector is made; keep it on the connection."""
        values: dict[str, Any] = super().clean() or self.cleaned_data
        kind = values.get("kind", "")
        if kind and kind != (values.get(SHOWN_KIND) or self.fields_of_kind):
            for name in [spec.name for spec in self._specs() if spec.name in self.errors]:
                del self.errors[name]
            self.add_error("kind", _("These are the settings of another kind now. Look at them, then save again."))
        elif kind and not self.errors:
            names = [spec.name for spec in self._specs()]
            found = {
                name: values[name].isoformat() if isinstance(values[name], date) else values[name] for name in names
            }
            try:
                self.instance.config = to_json(read(KINDS[kind].configuration, found))
            except ConfigurationError as error:
                for problem in error.problems:
                    words = CONFIG_PROBLEMS[problem.wrong]
                    self.add_error(problem.field or None, words % {"value": problem.value, "limit": problem.limit})
        return values


def form_for(kind: str) -> type[ConnectionForm]:
    """The form with the fields of this kind; none of them where nobody knows the kind."""
    known = KINDS.get(kind)
    fields: dict[str, Any] = {spec.name: _field(spec) for spec in fields_of(known.configuration)} if known else {}
    fields[SHOWN_KIND] = forms.CharField(required=False, widget=forms.HiddenInput())
    own = fields | {"fields_of_kind": kind if known else "", "__module__": __name__}
    made: type[ConnectionForm] = type(ConnectionForm)("ConnectionForm", (ConnectionForm,), own)  # type: ignore[misc]  # its metaclass makes the fields
    return made


def connection_form(
    data: Mapping[str, Any] | None, instance: Connection | None = None, *, kind_of_new: str = ""
) -> ConnectionForm:
    """The form of a connection, or of a new one (first of `kind_of_new`), with the fields of the kind that is chosen."""
    first = kind_of_new if kind_of_new in KINDS else next(iter(KINDS))
    if instance is None:
        instance = Connection(kind=first)
    else:
        first = instance.kind
    kind = str((data or {}).get("kind") or first)
    form = form_for(kind)
    if data and kind in KINDS and (data.get(SHOWN_KIND) or kind) != kind:
        # What was typed for another kind means nothing here: its own defaults are shown.
        fresh = {name: value for name, value in form(instance=instance).initial.items() if name not in form.Meta.fields}
        data = {**{name: data.get(name) for name in data}, **fresh, SHOWN_KIND: data.get(SHOWN_KIND)}
    return form(data, instance=instance)


_FIELDS: Mapping[FieldType, Any] = {
    FieldType.WHOLE: forms.IntegerField,
    FieldType.NUMBER: forms.FloatField,
    FieldType.FLAG: forms.BooleanField,
    FieldType.TEXT: partial(forms.CharField, strip=True),
    FieldType.DAY: DayField,
    FieldType.CHOICE: forms.ChoiceField,
    FieldType.SECRET: partial(forms.CharField, max_length=63),
}


def _field(spec: FieldSpec) -> forms.Field:
    """The form's field. Its bounds are the configuration's, so that Django words what is wrong in both languages."""
    label, help_text = CONFIG_FIELDS.get(spec.name, (spec.name, ""))
    options: dict[str, Any] = {"label": capfirst(str(label)), "help_text": help_text}
    can_be_empty = spec.holds is FieldType.FLAG or (spec.holds is FieldType.TEXT and not spec.is_required)
    options["required"] = not (spec.is_optional or can_be_empty)
    if spec.holds in {FieldType.WHOLE, FieldType.NUMBER}:
        options |= {"min_value": spec.bounds.least, "max_value": spec.bounds.most}
    if spec.holds is FieldType.NUMBER:
        options["widget"] = forms.NumberInput(attrs={"step": "any"})
    if spec.choices is not None:
        options["choices"] = [(choice.value, choice.value) for choice in spec.choices]
    if spec.holds is FieldType.SECRET:
        options["help_text"] = help_text or CONFIG_PROBLEMS[Wrong.NO_SECRET_NAME]
    if spec.is_optional and spec.holds in {FieldType.TEXT, FieldType.SECRET}:
        options["empty_value"] = None
    field: forms.Field = _FIELDS[spec.holds](**options)
    return field


class PauseForm(forms.Form):
    """For how long nothing is started."""

    minutes = forms.TypedChoiceField(
        label=_("Pause for"),
        coerce=int,
        choices=[
            (15, _("15 minutes")),
            (60, _("1 hour")),
            (480, _("8 hours")),
            (0, _("Until somebody resumes it")),
        ],
    )


class MisfortuneForm(forms.Form):
    """What a simulated machine shall suffer from now on."""

    name = forms.CharField(label=_("Name of the machine"), max_length=80)
    misfortune = forms.ChoiceField(label=_("Misfortune"), choices=[("", _("None")), *MISFORTUNES], required=False)
    kb_number = forms.CharField(
        label=_("KB article"), max_length=20, required=False, help_text=_("Empty: whichever update comes.")
    )

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        # The form of the connection stands on the same page, and has a field of the same name.
        super().__init__(data, auto_id="misfortune_%s")

    def clean(self) -> dict[str, Any]:
        """Some misfortunes happen with one update; the others have no use for a KB."""
        fields = self.cleaned_data
        try:
            fields["kb_numbers"] = parse_kb_numbers(fields.get("kb_number", ""))
        except KbNumbersError as error:
            self.add_error(
                "kb_number",
                _("“%(entry)s” is not a KB article; write 5034129 or KB5034129.") % {"entry": error.first_bad},
            )
        return fields

    @property
    def wish(self) -> str:
        """The value of the tag; empty: no misfortune."""
        name = self.cleaned_data["misfortune"]
        if not name or not Misfortune(name).names_an_update:
            return str(name)
        return " ".join(f"{name}:KB{number}" for number in self.cleaned_data["kb_numbers"]) or f"{name}:any"
