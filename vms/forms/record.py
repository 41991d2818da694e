"""The facts of a VM that people keep by hand: what they type, parsed and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from patching.kb_numbers import without_invisible
from patching.probes import MOST_CHARACTERS, ProbeError, is_outside, parse_probe, read_networks
from patching.recurrence import windows_id
from patching.terms import ImageReference, PatchMode, RebootSetting
from vms.choices import PATCH_MODES, REBOOT_SETTINGS
from vms.models import Connection, ImageCatalogEntry, ResourceGroup, VirtualMachine
from vms.selectors import connections_owned_by, groups_owned_by
from vms.services.records import (
    NewVm,
    VmRecord,
)
from vms.tags import tag_value
from vms.texts import PROBE_PROBLEMS

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class ImageField(forms.CharField):
    """An image as people name it; cleans to an `ImageReference`.

    `publisher:offer:SKU` (a version after it is dropped), a SKU of the catalog alone, or the resource id of a gallery
    image or container image. `edition`: what a machine without an image runs, which may stay as it is.
    """

    edition = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=500, **kwargs)
        self.widget.attrs |= {"list": "catalog-images", "autocomplete": "off", "spellcheck": "false"}

    def clean(self, value: Any) -> ImageReference:
        """Parse the name; the error says how to write it."""
        text = super().clean(value).strip()
        if self.edition and text == self.edition:
            return ImageReference(edition=text)
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
    named = ":".join(part for part in (image.publisher, image.offer, image.sku) if part)
    return image.resource_id or named or image.edition


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
        """Read `name=value` lines; the error names the first line of another form. Invisible characters are dropped."""
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
    def shown(self) -> dict[str, str]:
        """What the words of the verdict name."""
        return {"image_sku": self.cleaned_data["image"].sku}


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

    def say_name_is_taken(self) -> None:
        """Another machine of the group had the name first."""
        self.add_error("name", _("A machine of this name is in the resource group already."))


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
        cast("ImageField", self.fields["image"]).edition = vm.os_edition
        # The VM's own connection is always on offer, so that somebody without rights on it can save the form.
        self.offer(connections_owned_by(user) | Connection.objects.filter(pk=vm.connection_id).order_by("name"))
        probe = self.fields["health_probe"]
        assert isinstance(probe, ProbeField)
        probe.kept = vm.health_probe
