"""What a person prefers, whatever the browser; and what is kept of changes of accounts and groups."""

from __future__ import annotations

from typing import Any

import pgtrigger
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import models
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from audit.triggers import kept


class Preferences(models.Model):
    """Language, time zone, theme and density of one user; empty: what the browser says. Sign-in hands them to it."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="preferences"
    )
    language = models.CharField(_("language"), max_length=10, blank=True)
    time_zone = models.CharField(_("time zone"), max_length=60, blank=True)
    theme = models.CharField(_("theme"), max_length=10, blank=True)
    density = models.CharField(_("density"), max_length=10, blank=True)

    class Meta:
        db_table = "hotpatch_portal_preferences"  # as it was called before it had a room of its own
        verbose_name = _("preferences")
        verbose_name_plural = _("preferences")

    def __str__(self) -> str:
        return str(self.user)


class MailWishes(models.Model):
    """Of what a person wants to be told by mail, and where; who never asked for anything has no row, and gets nothing."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="mail_wishes"
    )
    address = models.EmailField(_("mail address"), blank=True)
    rollouts = models.BooleanField(_("a rollout that I may resume is paused"), default=False)
    decisions = models.BooleanField(_("an update waits for a decision that I may take"), default=False)
    bulk_requests = models.BooleanField(_("a bulk request of mine ended with failures"), default=False)

    class Meta:
        verbose_name = _("wishes for mail")
        verbose_name_plural = _("wishes for mail")

    def __str__(self) -> str:
        return f"{self.user}: {self.address}"


# Accounts and groups are Django's own tables. These stand for them only so that triggers can be put on them.


class Account(User):
    """A user: every column is kept but the password, of which it is kept that a person changed it."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = [
            kept(
                source="auth.user",
                create=Tag.ACCOUNT_CREATE,
                change=Tag.ACCOUNT_CHANGE,
                remove=Tag.ACCOUNT_REMOVE,
                name="it->>'username'",
                left_out=("password", "last_login"),
                moves={
                    "was->>'is_active' = 'true' AND is_now->>'is_active' = 'false'": Tag.ACCOUNT_DEACTIVATE,
                    "was->>'is_active' = 'false' AND is_now->>'is_active' = 'true'": Tag.ACCOUNT_ACTIVATE,
                },
            ),
            # At sign-in Django may store the same password with a newer hash; nobody is signed in then.
            pgtrigger.Trigger(
                name="audit_password",
                when=pgtrigger.After,
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange("password"),
                func=f"""
IF audit_is_by_people() THEN
    INSERT INTO audit_auditevent (tag, object_id, object_name)
    VALUES ('{Tag.ACCOUNT_PASSWORD.value}', NEW.id::text, left(NEW.username, 200));
END IF;
RETURN NULL;
""",  # noqa: S608 (written by us, nothing of a request)
            ),
        ]


class People(Group):
    """A group of Django's."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = [
            kept(
                source="auth.group",
                create=Tag.GROUP_OF_PEOPLE_CREATE,
                change=Tag.GROUP_OF_PEOPLE_CHANGE,
                remove=Tag.GROUP_OF_PEOPLE_REMOVE,
                name="it->>'name'",
            )
        ]


_USER = "(SELECT username FROM auth_user WHERE id = (it->>'user_id')::bigint)"
_GROUP = "(SELECT name FROM auth_group WHERE id = (it->>'group_id')::bigint)"


def _given(source: str, to: str, id_column: str) -> pgtrigger.Trigger:
    return kept(
        source=source,
        create=Tag.PERMISSION_GIVE,
        change=None,
        remove=Tag.PERMISSION_TAKE,
        name=to,
        object_id=f"it->>'{id_column}'",
    )


_Membership: Any = User.groups.through
_UserPermission: Any = User.user_permissions.through
_GroupPermission: Any = Group.permissions.through


class Membership(_Membership):  # type: ignore[misc]  # Django makes the class at run time
    """That a user is in a group."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = [
            kept(
                source="auth.user_groups",
                create=Tag.MEMBER_ADD,
                change=None,
                remove=Tag.MEMBER_REMOVE,
                name=_USER,
                object_id="it->>'user_id'",
            )
        ]


class UserPermission(_UserPermission):  # type: ignore[misc]  # Django makes the class at run time
    """That a user has a permission of the admin site."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = [_given("auth.user_user_permissions", _USER, "user_id")]


class GroupPermission(_GroupPermission):  # type: ignore[misc]  # Django makes the class at run time
    """That a group has a permission of the admin site."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = [_given("auth.group_permissions", _GROUP, "group_id")]
