"""What people type about VMs, parsed and validated."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from connectors.simulator import Misfortune
from patching.kb_numbers import KbNumbersError, parse_kb_numbers, without_invisible
from patching.probes import MOST_CHARACTERS, ProbeError, is_outside, parse_probe, read_networks
from patching.recurrence import windows_id
from patching.terms import AssessmentMode, ImageReference, PatchMode, RebootSetting
from vms.choices import ASSESSMENT_MODES, MISFORTUNES, PATCH_MODES, REBOOT_SETTINGS, Role
from vms.models import Connection, ImageCatalogEntry, ResourceGroup, VirtualMachine
from vms.selection import AskedSelection
from vms.selectors import MAX_SELECTED, connections_owned_by, groups_owned_by
from vms.services.records import (
    NewVm,
    RecordVerdict,
    SettingsRefusedError,
    VmExistsError,
    VmRecord,
    change_record,
    create_vm,
    judge_new_vm,
    judge_record,
)
from vms.services.settings import SettingsChange, SettingsOutcome, Verdict, judge_change, selected_vms
from vms.tags import tag_value
from vms.texts import PROBE_PROBLEMS

if TYPE_CHECKING:
    from django.contrib.auth.models import User


KEEP = ("", _("Keep as it is"))
CUSTOMER_MANAGED = "CustomerManaged"
ORCHESTRATIONS = [
    KEEP,
    (PatchMode.AUTOMATIC_BY_PLATFORM.value, _("Azure Managed - Safe Deployment")),
    (CUSTOMER_MANAGED, _("Customer Managed Schedules")),
    (PatchMode.AUTOMATIC_BY_OS.value, _("Windows Automatic Updates")),
    (PatchMode.MANUAL.value, _("Manual updates")),
]


def orchestration_of(vm: VirtualMachine) -> str:
    """The choice of `ORCHESTRATIONS` that a VM has now."""
    is_customer_managed = vm.bypass_platform_safety_checks and vm.patch_mode == PatchMode.AUTOMATIC_BY_PLATFORM
    return CUSTOMER_MANAGED if is_customer_managed else vm.patch_mode


class SettingsForm(forms.Form):
    """What to change; what is kept stays as each machine has it."""

    patch_orchestration = forms.ChoiceField(
        label=_("Patch orchestration"),
        choices=ORCHESTRATIONS,
        required=False,
        help_text=_("Hotpatch needs “Azure Managed - Safe Deployment”."),
    )
    assessment_mode = forms.ChoiceField(
        label=_("Periodic assessment"), choices=[KEEP, *ASSESSMENT_MODES], required=False
    )
    hotpatch = forms.ChoiceField(
        label=_("Hotpatch"), choices=[KEEP, ("on", _("On")), ("off", _("Off"))], required=False
    )
    reboot_setting = forms.ChoiceField(label=_("Reboot setting"), choices=[KEEP, *REBOOT_SETTINGS], required=False)

    def clean(self) -> dict[str, object]:
        """Refuse a form that changes nothing."""
        if not self.errors and not self.change.values:
            self.add_error("patch_orchestration", _("Choose at least one setting to change."))
        return self.cleaned_data

    @property
    def change(self) -> SettingsChange:
        """The change that a valid form asks for. Every orchestration says whether schedules bypass the safety checks."""
        fields = self.cleaned_data
        orchestration = fields["patch_orchestration"]
        is_customer_managed = orchestration == CUSTOMER_MANAGED
        mode = PatchMode.AUTOMATIC_BY_PLATFORM if is_customer_managed else orchestration and PatchMode(orchestration)
        return SettingsChange(
            patch_mode=mode or None,
            bypass_platform_safety_checks=is_customer_managed if orchestration else None,
            assessment_mode=AssessmentMode(fields["assessment_mode"]) if fields["assessment_mode"] else None,
            enable_hotpatching=fields["hotpatch"] == "on" if fields["hotpatch"] else None,
            reboot_setting=RebootSetting(fields["reboot_setting"]) if fields["reboot_setting"] else None,
        )


class ImageField(forms.CharField):
    """An image as people name it; cleans to an `ImageReference`.

    `publisher:offer:SKU` (a version after it is dropped), a SKU of the catalog alone, or the resource id of a gallery
    image or container image.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=500, **kwargs)
        self.widget.attrs |= {"list": "catalog-images", "autocomplete": "off", "spellcheck": "false"}

    def clean(self, value: Any) -> ImageReference:
        """Parse the name; the error says how to write it."""
        text = super().clean(value).strip()
        if "/" in text:
            return ImageReference(resource_id=text)
        parts = [part.strip() for part in text.split(":")]
        if len(parts) in {3, 4} and all(parts):
            return ImageReference(*parts[:3])
        entries = list(ImageCatalogEntry.objects.filter(sku__iexact=text)[:2])
        if len(entries) == 1:
            return ImageReference(entries[0].publisher, entries[0].offer, entries[0].sku)
        raise forms.ValidationError(
            _("“%(text)s” is not an image; write publisher:offer:SKU, or the resource id of a gallery image.")
            % {"text": text[:100]}
        )


class ProbeField(forms.CharField):
    """Where the VM's application is asked for its health; cleans to the text of a probe that may be asked."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MOST_CHARACTERS, required=False, **kwargs)
        self.widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}
        self.kept = ""  # what the VM has already may stay, whatever the networks have become

    def clean(self, value: Any) -> str:
        """Parse it; the error says how to write it, or that it would never be asked."""
        text = super().clean(value)
        if text in {"", self.kept}:
            return str(text)
        try:
            probe = parse_probe(text)
        except ProbeError as error:
            raise forms.ValidationError(PROBE_PROBLEMS[error.problem] % {"entry": error.entry[:60]}) from None
        networks, _malformed = read_networks(settings.PROBE_NETWORKS)
        if not networks:
            raise forms.ValidationError(
                _("This portal does not use probes: its administrator has not named any network in PROBE_NETWORKS.")
            )
        if is_outside(probe, networks):
            raise forms.ValidationError(
                _("%(host)s is outside of the networks allowed for probes (PROBE_NETWORKS).") % {"host": probe.host}
            )
        return str(probe)


def image_text(image: ImageReference) -> str:
    """An image as `ImageField` reads it."""
    return image.resource_id or ":".join(part for part in (image.publisher, image.offer, image.sku) if part)


class RecordForm(forms.Form):
    """The facts of a VM that a person keeps by hand, as far as updates depend on them."""

    connection = forms.ModelChoiceField(
        label=_("Connection"),
        queryset=Connection.objects.none(),
        empty_label=None,
        help_text=_(
            "Those behind which machines of a subscription or resource group are that you own; Owners of everything "
            "choose from all."
        ),
    )
    location = forms.CharField(label=_("Location"), max_length=60, initial="japaneast")
    image = ImageField(
        label=_("Image"),
        help_text=_("Type to search the image catalog; or publisher:offer:SKU, or the resource id of a gallery image."),
    )
    zone = forms.ChoiceField(
        label=_("Availability zone"), choices=[("", _("None")), ("1", "1"), ("2", "2"), ("3", "3")], required=False
    )
    availability_set = forms.CharField(label=_("Availability set"), required=False, max_length=500)
    time_zone = forms.CharField(
        label=_("Time zone"),
        required=False,
        max_length=80,
        help_text=_("As Windows names it, e.g. Tokyo Standard Time."),
    )
    tags = forms.CharField(
        label=_("Tags"),
        required=False,
        max_length=5_000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("One per line: name=value."),
    )
    health_probe = ProbeField(
        label=_("Health probe"),
        help_text=_(
            "Asked before and after the machine in a rollout: tcp://host:port, http://host/path or https://host/path. "
            "Healthy: the connection is accepted, or the answer is 200 to 299. Empty: not asked."
        ),
    )

    def clean_time_zone(self) -> str:
        """A zone that Windows knows, or that the machine has already; another would leave it without a clock."""
        text = str(self.cleaned_data["time_zone"])
        if not text or text == self.initial.get("time_zone"):
            return text
        try:
            return windows_id(text)
        except KeyError:
            raise forms.ValidationError(
                _("“%(text)s” is no time zone of Windows; write for example Tokyo Standard Time.") % {"text": text[:80]}
            ) from None

    def clean_tags(self) -> dict[str, str]:
        """Read `name=value` lines; the first that is none is named. Characters that nobody can see are dropped."""
        tags: dict[str, str] = {}
        for line in without_invisible(self.cleaned_data["tags"]).splitlines():
            name, sign, value = (part.strip() for part in line.partition("="))
            if not line.strip():
                continue
            if not sign or not name or len(name) > 512 or len(value) > 256 or "\x00" in line:
                raise forms.ValidationError(_("“%(line)s” is not a tag; write name=value.") % {"line": line[:40]})
            if tag_value(tags, name) is not None:
                raise forms.ValidationError(
                    _("The tag “%(name)s” is there twice; names of tags are compared without case.")
                    % {"name": name[:40]}
                )
            tags[name] = value
        return tags

    def clean(self) -> dict[str, Any]:
        """An availability zone and an availability set exclude each other."""
        fields = self.cleaned_data
        if fields.get("zone") and fields.get("availability_set"):
            self.add_error("availability_set", _("A machine is in a zone or in an availability set, not in both."))
        return fields

    def offer(self, connections: QuerySet[Connection]) -> None:
        """The connections to choose from."""
        field = self.fields["connection"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = connections

    @property
    def record(self) -> VmRecord:
        """What a valid form says."""
        fields = self.cleaned_data
        return VmRecord(
            connection=fields["connection"],
            location=fields["location"],
            image=fields["image"],
            zone=fields["zone"],
            availability_set=fields["availability_set"],
            time_zone=fields["time_zone"],
            tags=fields["tags"],
            health_probe=fields["health_probe"],
        )

    @property
    def catalog(self) -> list[tuple[str, str]]:
        """The images that can be hotpatched, to search: how to write one, and its product line."""
        return [(str(entry), entry.get_product_line_display()) for entry in ImageCatalogEntry.objects.all()]

    @property
    def shown(self) -> dict[str, str]:
        """What the words of the verdict name."""
        return {"image_sku": self.cleaned_data["image"].sku}

    @cached_property
    def verdict(self) -> RecordVerdict | None:
        """What the rules say so far; None while a field is wrong."""
        return self.judge() if self.is_bound and self.is_valid() else None

    def judge(self) -> RecordVerdict:
        """Ask the rules about a valid form."""
        raise NotImplementedError


class CreateForm(RecordForm):
    """A VM record by hand: what Azure's creation page asks for."""

    name = forms.RegexField(
        label=_("Name"),
        regex=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$",
        max_length=64,
        help_text=_("Letters, digits, dots, dashes and underscores, up to 64."),
    )
    resource_group = forms.ModelChoiceField(
        label=_("Resource group"), queryset=ResourceGroup.objects.none(), empty_label=None
    )
    hotpatch = forms.ChoiceField(
        label=_("Hotpatch"),
        choices=[("", _("As the image has it")), ("on", _("On")), ("off", _("Off"))],
        required=False,
    )
    patch_mode = forms.ChoiceField(
        label=_("Patch orchestration"), choices=PATCH_MODES, initial=PatchMode.AUTOMATIC_BY_PLATFORM.value
    )
    reboot_setting = forms.ChoiceField(
        label=_("Reboot setting"), choices=REBOOT_SETTINGS, initial=RebootSetting.IF_REQUIRED.value
    )
    field_order = (
        "name",
        "resource_group",
        "connection",
        "location",
        "image",
        "hotpatch",
        "patch_mode",
        "reboot_setting",
    )

    def __init__(self, data: Any = None, *, user: User) -> None:
        super().__init__(data)
        groups = self.fields["resource_group"]
        assert isinstance(groups, forms.ModelChoiceField)
        groups.queryset = groups_owned_by(user)
        self.offer(connections_owned_by(user))

    @property
    def new_vm(self) -> NewVm:
        """What a valid form asks for."""
        fields = self.cleaned_data
        return NewVm(
            name=fields["name"],
            resource_group=fields["resource_group"],
            record=self.record,
            enable_hotpatching=fields["hotpatch"] == "on" if fields["hotpatch"] else None,
            patch_mode=PatchMode(fields["patch_mode"]),
            reboot_setting=RebootSetting(fields["reboot_setting"]),
        )

    def judge(self) -> RecordVerdict:
        """What the rules say of the new VM."""
        return judge_new_vm(new=self.new_vm)

    def save(self) -> VirtualMachine | None:
        """Make the VM. None: it was refused, and the form's errors say why."""
        try:
            return create_vm(new=self.new_vm)
        except SettingsRefusedError:
            return None  # the verdict beside the form says why
        except VmExistsError:
            self.add_error("name", _("A machine of this name is in the resource group already."))
            return None


class EditForm(RecordForm):
    """The facts of a VM that is there. Its name and resource group are who it is; its settings have their own page."""

    def __init__(self, data: Any = None, *, vm: VirtualMachine, user: User) -> None:
        super().__init__(
            data,
            initial={
                "connection": vm.connection_id,
                "location": vm.location,
                "image": image_text(vm.image),
                "zone": str(vm.zones[0]) if vm.zones else "",
                "availability_set": vm.availability_set,
                "time_zone": vm.time_zone,
                "tags": "\n".join(f"{name}={value}" for name, value in vm.tags.items()),
                "health_probe": vm.health_probe,
            },
        )
        self.vm = vm
        # Where it is, it may stay, whoever may choose from what.
        self.offer(connections_owned_by(user) | Connection.objects.filter(pk=vm.connection_id).order_by("name"))
        probe = self.fields["health_probe"]
        assert isinstance(probe, ProbeField)
        probe.kept = vm.health_probe

    def judge(self) -> RecordVerdict:
        """What the rules say of the VM with these facts."""
        return judge_record(vm=self.vm, record=self.record)

    def save(self) -> bool:
        """Change the facts. False: refused; the verdict beside the form says why."""
        try:
            change_record(vm_id=self.vm.pk, record=self.record)
        except SettingsRefusedError:
            return False
        return True


class SettingsWizard:
    """Change, review, done: for one machine or a selection. All state is in the form."""

    def __init__(self, data: QueryDict, *, user: User, is_sent: bool) -> None:
        """`is_sent`: whether the form was sent, or its page is asked for."""
        others = {"go", *SettingsForm.base_fields}
        self.asked = AskedSelection(data, user=user, role=Role.OWNER, others=others, most=MAX_SELECTED)
        self.vms, self.owned = selected_vms(user, self.asked.selection)
        self.form = SettingsForm(data if is_sent else None)
        self._say_what_is()
        self.go = data.get("go", "") if is_sent else ""
        self.outcomes: list[SettingsOutcome] = []
        self.is_done = False
        self.change = self.asked.change if self.go in {"review", "apply"} else None
        # All that match: what is meant was shown, and its number is typed.
        is_typed = self.asked.is_all and self.go == "apply"
        self.count_form = CountForm(data if is_typed else None, count=self.asked.selection.count)
        is_asked = bool(self.vms) and self.go in {"review", "apply"} and self.change is None
        if is_asked and self.form.is_valid():
            self.outcomes = judge_change(vms=self.vms, change=self.form.change, owned=self.owned)

    def _say_what_is(self) -> None:
        """Under each choice, what the machines have now; of several, how many have what."""
        choices = {name: dict(field.choices) for name, field in self.form.fields.items()}  # type: ignore[attr-defined]
        for name, values in (
            ("patch_orchestration", [orchestration_of(vm) for vm in self.vms]),
            ("assessment_mode", [vm.assessment_mode for vm in self.vms]),
            ("hotpatch", ["on" if vm.enable_hotpatching else "off" for vm in self.vms]),
            ("reboot_setting", [vm.reboot_setting for vm in self.vms]),
        ):
            counts = Counter(values).most_common()
            words = [str(choices[name][value]) + (f" ({count})" if len(counts) > 1 else "") for value, count in counts]
            help_text = self.form.fields[name].help_text
            now = _("Now: %(values)s.") % {"values": ", ".join(words)}
            self.form.fields[name].help_text = f"{now} {help_text}".strip()

    @property
    def are_reported(self) -> bool:
        """Whether all of them only report their settings: there is nothing to change from here."""
        return bool(self.vms) and all(vm.are_settings_reported for vm in self.vms)

    @property
    def step(self) -> str:
        """change, review or done."""
        if self.is_done:
            return "done"
        return "review" if self.outcomes else "change"

    @property
    def is_confirmed(self) -> bool:
        """Whether the change was reviewed and is to be made."""
        return (
            self.go == "apply" and bool(self.outcomes) and (not self.count_form.is_bound or self.count_form.is_valid())
        )

    def finish(self, outcomes: list[SettingsOutcome]) -> None:
        """Show what was done."""
        self.outcomes, self.is_done = outcomes, True

    @property
    def status(self) -> int:
        """422 when the selection or the form was refused, else 200."""
        if self.asked.problems and (self.form.is_bound or not self.asked.is_nothing_ticked):
            return 422
        is_refused = self.go in {"review", "apply"} and (self.form.errors or self.count_form.errors or self.change)
        return 422 if is_refused else 200

    @property
    def counts(self) -> dict[str, int]:
        """How many are changed, unchanged and refused."""
        return {verdict.value: sum(o.verdict is verdict for o in self.outcomes) for verdict in Verdict}


class CountForm(forms.Form):
    """All that match are confirmed by their number, typed."""

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


# --- connections -------------------------------------------------------------------------------------------------


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
