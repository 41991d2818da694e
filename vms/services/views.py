"""Saved views and the columns of the list: what a person keeps for the next time. Triggers keep who changes a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction

from vms.choices import Role
from vms.models import Grants, ListColumns, SavedView

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class ViewExistsError(Exception):
    """The person has a view of this name."""


def may_share(grants: Grants) -> bool:
    """Whether who holds these grants may share views with everybody: Owners of everything."""
    return grants.at_least(Role.OWNER).are_of_everything


def save_view(*, owner: User, name: str, address: str, is_shared: bool) -> SavedView:
    """Keep this address of the list by a name. Raises `ViewExistsError`, and `PermissionDenied` for who may not share."""
    if is_shared and not may_share(Grants.of(owner)):
        raise PermissionDenied
    try:
        with transaction.atomic():
            return SavedView.objects.create(owner=owner, name=name, address=address, is_shared=is_shared)
    except IntegrityError as error:
        raise ViewExistsError(name) from error


def change_view(*, view: SavedView, name: str, is_shared: bool, by: User) -> None:
    """Rename one's view, share it or no more. Raises `ViewExistsError`, and `PermissionDenied` for who may not do that.

    Who no longer may share can still take back what he shared.
    """
    if view.owner_id != by.pk or (is_shared and not view.is_shared and not may_share(Grants.of(by))):
        raise PermissionDenied
    view.name, view.is_shared = name, is_shared
    try:
        with transaction.atomic():
            view.save(update_fields=["name", "is_shared"])
    except IntegrityError as error:
        raise ViewExistsError(name) from error


def replace_filters(*, view: SavedView, address: str, by: User) -> None:
    """Let one's view show this address of the list from now on. Raises `PermissionDenied` for the views of others."""
    if view.owner_id != by.pk:
        raise PermissionDenied
    view.address = address
    view.save(update_fields=["address"])


def remove_view(*, view: SavedView, by: User) -> None:
    """Forget a view: one's own, or as an Owner of everything a shared one. Raises `PermissionDenied` for others."""
    if not may_remove(view=view, by=by):
        raise PermissionDenied
    view.delete()


def may_remove(*, view: SavedView, by: User) -> bool:
    """Whether this person may take the view away."""
    return view.owner_id == by.pk or (view.is_shared and may_share(Grants.last_read(by)))


def choose_columns(*, user: User, columns: Sequence[str]) -> None:
    """Keep which columns of the list this person sees, in this order; none: the usual ones again."""
    ListColumns.objects.update_or_create(user=user, defaults={"columns": list(columns)})
