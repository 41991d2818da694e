"""Events: who did what to what, when, what it was before and after, and why. Rows are added, never changed."""

from __future__ import annotations

import pgtrigger
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from audit.tags import Door, Tag

# Who, by which door and why follow from the context of the statement (audit.context), unless the writer says it.
_SIGN = (
    """
about := audit_context();
IF NEW.person_id IS NULL THEN
    NEW.person_id := (about->>'user')::bigint;
END IF;
IF NEW.person = '' AND NEW.person_id IS NOT NULL THEN
    NEW.person := COALESCE((SELECT username FROM auth_user WHERE id = NEW.person_id), '');
END IF;
IF NEW.door = '' THEN
    NEW.door := COALESCE(
        about->>'door',
        CASE WHEN current_setting('application_name') LIKE 'hotpatch-portal%%' THEN '{portal}'
             ELSE '{database}' END
    );
END IF;
IF NEW.agent = '' THEN
    NEW.agent := left(CASE WHEN NEW.door = '{database}' THEN session_user ELSE COALESCE(about->>'agent', '') END, 150);
END IF;
IF NEW.reason = '' THEN
    NEW.reason := left(COALESCE(about->>'reason', ''), 500);
END IF;
RETURN NEW;
""".replace("%%", "%")
    .replace("{portal}", Door.PORTAL.value)
    .replace("{database}", Door.DATABASE.value)
)

_KEEP = """
IF TG_OP = 'DELETE' AND current_setting('audit.retention', true) = 'on' THEN
    RETURN OLD;
END IF;
RAISE EXCEPTION 'Events of the audit are never changed or removed, but by the retention.'
    USING ERRCODE = 'insufficient_privilege';
"""


class AuditEvent(models.Model):
    """One act. `person` empty: the portal itself, or whoever `agent` names; `door` portal with a person: for that person.

    Names are kept as they were. `object_id` is text, since every kind of object is kept here and none is referred to.
    `vm_key`, `group_key` and `subscription_key` say in which place it was (ids of the inventory), `owner_key` whose
    object it is: readers are judged by them. `before` and `after` hold the columns that differ. Each value is at most
    2,000 characters of JSON.
    """

    at = models.DateTimeField(_("when"), db_default=models.Func(function="clock_timestamp"), editable=False)
    tag = models.CharField(_("what"), max_length=60)  # of `Tag`; no choices, so that a new tag is no migration
    door = models.CharField(_("door"), max_length=10, choices=Door, blank=True, default="", db_default="")
    person_id = models.BigIntegerField(null=True)
    person = models.CharField(_("who"), max_length=150, blank=True, default="", db_default="")
    agent = models.CharField(max_length=150, blank=True, default="", db_default="")
    reason = models.CharField(_("why"), max_length=500, blank=True, default="", db_default="")
    # The model that the columns of `before` and `after` are of, by its label.
    source = models.CharField(max_length=60, blank=True, default="", db_default="")
    object_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    object_name = models.CharField(_("object"), max_length=200, blank=True, default="", db_default="")
    vm_key = models.BigIntegerField(null=True)
    group_key = models.BigIntegerField(null=True)
    subscription_key = models.BigIntegerField(null=True)
    owner_key = models.BigIntegerField(null=True)
    is_public = models.BooleanField(default=False, db_default=False)
    before = models.JSONField(default=dict, db_default={})
    after = models.JSONField(default=dict, db_default={})
    detail = models.JSONField(default=dict, db_default={})

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        default_permissions = ("view",)
        ordering = ["-at", "-id"]
        # One for each way that the Activity page narrows down by; all in the order in which it shows.
        indexes = [
            models.Index(fields=["at", "id"], name="audit_event_at"),
            models.Index(fields=["tag", "at", "id"], name="audit_event_tag"),
            models.Index(fields=["person_id", "at", "id"], name="audit_event_person"),
            models.Index(Lower("person"), "at", "id", name="audit_event_person_name"),
            models.Index(Lower("object_name"), "at", "id", name="audit_event_object"),
            models.Index(
                fields=["vm_key", "at", "id"], condition=models.Q(vm_key__isnull=False), name="audit_event_vm"
            ),
            models.Index(
                fields=["group_key", "at", "id"], condition=models.Q(group_key__isnull=False), name="audit_event_group"
            ),
            models.Index(
                fields=["subscription_key", "at", "id"],
                condition=models.Q(subscription_key__isnull=False),
                name="audit_event_subscription",
            ),
            models.Index(
                fields=["owner_key", "at", "id"], condition=models.Q(owner_key__isnull=False), name="audit_event_owner"
            ),
            models.Index(fields=["at", "id"], condition=models.Q(is_public=True), name="audit_event_public"),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="sign",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("about", "jsonb")],
                func=_SIGN,
            ),
            pgtrigger.Trigger(
                name="keep", when=pgtrigger.Before, operation=pgtrigger.Update | pgtrigger.Delete, func=_KEEP
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tag} {self.object_name}"

    @property
    def words(self) -> str:
        """What was done; the tag itself where a later version wrote it."""
        return str(Tag(self.tag).label) if self.tag in Tag.values else self.tag


class OutboxCursor(models.Model):
    """How far a reader of the events has come: everything up to the event `delivered` was handed over."""

    consumer = models.CharField(max_length=60, primary_key=True)
    delivered = models.BigIntegerField(default=0)
    moved_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("outbox position")
        verbose_name_plural = _("outbox positions")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.consumer}: {self.delivered}"
