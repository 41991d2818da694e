"""Programs that act in the portal: who they are, and the secrets that they prove it by (docs/adr/0013)."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from audit.triggers import kept


class ServicePrincipal(models.Model):
    """A program with access to the portal through the ARM door. It cannot open pages.

    It acts by an account of its own, which has no password: roles, groups, operations and the record refer to accounts, and
    so to it. It is off while its account is.
    """

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="service_principal",
        verbose_name=_("account"),
    )
    name = models.CharField(_("name"), max_length=60)
    app_id = models.UUIDField(_("client id"), unique=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("service principal")
        verbose_name_plural = _("service principals")
        ordering = ["name"]
        constraints = [models.UniqueConstraint(Lower("name"), name="vms_serviceprincipal_unique_name")]
        triggers = [
            kept(
                source="vms.serviceprincipal",
                create=Tag.PRINCIPAL_CREATE,
                change=Tag.PRINCIPAL_CHANGE,
                remove=Tag.PRINCIPAL_REMOVE,
                name="it->>'name'",
                object_id="it->>'account_id'",
            )
        ]

    def __str__(self) -> str:
        return self.name


class PrincipalSecret(models.Model):
    """A secret of a service principal: shown once, kept as its SHA-256 (it is random, 256 bits of it)."""

    principal = models.ForeignKey(
        ServicePrincipal, on_delete=models.CASCADE, related_name="secrets", verbose_name=_("service principal")
    )
    label = models.CharField(_("used by"), max_length=60, blank=True)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    hint = models.CharField(_("ends in"), max_length=4)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    expires_at = models.DateTimeField(_("valid until"))
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)

    class Meta:
        verbose_name = _("secret")
        verbose_name_plural = _("secrets")
        ordering = ["-created_at", "-pk"]
        triggers = [
            kept(
                source="vms.principalsecret",
                create=Tag.SECRET_CREATE,
                change=Tag.SECRET_REVOKE,
                remove=None,
                name="(SELECT name FROM vms_serviceprincipal WHERE account_id = (it->>'principal_id')::bigint)",
                left_out=("digest", "last_used_at", "principal_id"),
                object_id="it->>'principal_id'",
            )
        ]

    def __str__(self) -> str:
        return f"…{self.hint}"
