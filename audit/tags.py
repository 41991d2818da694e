"""What can be kept: one tag for each act, subject:object:action, with its words."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Tag(models.TextChoices):
    """Every kind of act that is kept. Stored events hold the value, so a tag may be added but never renamed."""

    # machine: a change of one machine, or an operation that was requested for it
    ASSESSMENT_REQUEST = "machine:assessment:request", _("Assessment requested")
    INSTALLATION_REQUEST = "machine:installation:request", _("Installation requested")
    ROLLBACK_REQUEST = "machine:rollback:request", _("Rollback requested")
    OPERATION_CANCEL = "machine:operation:cancel", _("Operation cancelled")
    HOLD_MAKE = "machine:hold:make", _("KB held back")
    HOLD_LIFT = "machine:hold:lift", _("Hold lifted")
    RECORD_CREATE = "machine:record:create", _("Record created")
    RECORD_CHANGE = "machine:record:change", _("Record changed")
    RECORD_REMOVE = "machine:record:remove", _("Record removed")
    SETTINGS_CHANGE = "machine:settings:change", _("Settings changed")
    MISFORTUNE_SET = "machine:misfortune:set", _("Misfortune set")
    # fleet: something that means many machines
    INVENTORY_IMPORT = "fleet:inventory:import", _("Inventory imported")
    INVENTORY_TAKE_OVER = "fleet:inventory:take_over", _("Checked inventory file taken over")
    INVENTORY_SYNC = "fleet:inventory:sync", _("Inventory sync requested")
    INVENTORY_CANCEL = "fleet:inventory:cancel", _("Inventory import cancelled")
    INVENTORY_EXPORT = "fleet:inventory:export", _("List exported")
    HISTORY_EXPORT = "fleet:history:export", _("History exported")
    VIEW_CREATE = "fleet:view:create", _("View saved")
    VIEW_CHANGE = "fleet:view:change", _("View changed")
    VIEW_REMOVE = "fleet:view:remove", _("View removed")
    BULK_REQUEST = "fleet:bulk:request", _("Bulk request made")
    BULK_CANCEL = "fleet:bulk:cancel", _("Bulk request cancelled")
    ROLLOUT_CREATE = "fleet:rollout:create", _("Rollout started")
    ROLLOUT_CHANGE = "fleet:rollout:change", _("Rollout changed")
    ROLLOUT_PAUSE = "fleet:rollout:pause", _("Rollout paused")
    ROLLOUT_RESUME = "fleet:rollout:resume", _("Rollout resumed")
    ROLLOUT_FORGIVE = "fleet:rollout:forgive", _("Failures forgiven")
    ROLLOUT_END = "fleet:rollout:end", _("Rollout ended")
    ROLLOUT_FINISH = "fleet:rollout:finish", _("Rollout finished")
    ROLLOUT_REMOVE = "fleet:rollout:remove", _("Rollout removed")
    MAINTENANCE_CREATE = "fleet:maintenance:create", _("Maintenance configuration created")
    MAINTENANCE_CHANGE = "fleet:maintenance:change", _("Maintenance configuration changed")
    MAINTENANCE_ENABLE = "fleet:maintenance:enable", _("Maintenance configuration switched on")
    MAINTENANCE_DISABLE = "fleet:maintenance:disable", _("Maintenance configuration switched off")
    MAINTENANCE_REMOVE = "fleet:maintenance:remove", _("Maintenance configuration removed")
    MAINTENANCE_ASSIGN = "fleet:maintenance:assign", _("Machines added to a maintenance configuration")
    MAINTENANCE_UNASSIGN = "fleet:maintenance:unassign", _("Machines taken out of a maintenance configuration")
    # place: subscriptions and resource groups
    SUBSCRIPTION_CHANGE = "place:subscription:change", _("Subscription changed")
    SUBSCRIPTION_REMOVE = "place:subscription:remove", _("Subscription removed")
    GROUP_CHANGE = "place:resource_group:change", _("Resource group changed")
    GROUP_REMOVE = "place:resource_group:remove", _("Resource group removed")
    # connection: how machines are reached
    CONNECTION_CREATE = "connection:connection:create", _("Connection created")
    CONNECTION_CHANGE = "connection:connection:change", _("Connection changed")
    CONNECTION_PAUSE = "connection:connection:pause", _("Connection paused")
    CONNECTION_RESUME = "connection:connection:resume", _("Connection resumed")
    CONNECTION_REMOVE = "connection:connection:remove", _("Connection removed")
    CONNECTION_TEST = "connection:connection:test", _("Connection tested")
    # catalogue: what is known of updates and images
    RELEASE_CREATE = "catalogue:release:create", _("Release recorded")
    RELEASE_CHANGE = "catalogue:release:change", _("Release corrected")
    RELEASE_CONFIRM = "catalogue:release:confirm", _("Release type confirmed")
    RELEASE_REMOVE = "catalogue:release:remove", _("Release removed")
    PATCH_CREATE = "catalogue:patch:create", _("Update recorded")
    PATCH_CHANGE = "catalogue:patch:change", _("Update corrected")
    PATCH_REMOVE = "catalogue:patch:remove", _("Update removed")
    GUARD_DECIDE = "catalogue:guard:decide", _("Held update decided")
    CATALOGUE_IMPORT = "catalogue:catalogue:import", _("Catalog file imported")
    IMAGE_CREATE = "catalogue:image:create", _("Image added to the catalog")
    IMAGE_CHANGE = "catalogue:image:change", _("Image of the catalog changed")
    IMAGE_REMOVE = "catalogue:image:remove", _("Image removed from the catalog")
    # people: who may do what, and accounts
    ROLE_GIVE = "people:role:give", _("Role given")
    ROLE_CHANGE = "people:role:change", _("Role changed")
    ROLE_TAKE = "people:role:take", _("Role taken back")
    ACCOUNT_CREATE = "people:account:create", _("Account created")
    ACCOUNT_CHANGE = "people:account:change", _("Account changed")
    ACCOUNT_ACTIVATE = "people:account:activate", _("Account activated")
    ACCOUNT_DEACTIVATE = "people:account:deactivate", _("Account deactivated")
    ACCOUNT_PASSWORD = "people:account:password", _("Password changed")
    ACCOUNT_REMOVE = "people:account:remove", _("Account removed")
    GROUP_OF_PEOPLE_CREATE = "people:group:create", _("Group created")
    GROUP_OF_PEOPLE_CHANGE = "people:group:change", _("Group changed")
    GROUP_OF_PEOPLE_REMOVE = "people:group:remove", _("Group removed")
    MEMBER_ADD = "people:member:add", _("Added to a group")
    MEMBER_REMOVE = "people:member:remove", _("Taken out of a group")
    PERMISSION_GIVE = "people:permission:give", _("Permission given")
    PERMISSION_TAKE = "people:permission:take", _("Permission taken back")
    SESSION_END = "people:session:end", _("Signed out elsewhere")
    LOCKOUT_LIFT = "people:lockout:lift", _("Lock-outs lifted")
    PRINCIPAL_CREATE = "people:principal:create", _("Service principal created")
    PRINCIPAL_CHANGE = "people:principal:change", _("Service principal changed")
    PRINCIPAL_REMOVE = "people:principal:remove", _("Service principal removed")
    SECRET_CREATE = "people:secret:create", _("Secret made")
    SECRET_REVOKE = "people:secret:revoke", _("Secret revoked")
    # portal: the installation itself
    BACKUP_WRITE = "portal:backup:write", _("Backup written")
    BACKUP_RESTORE = "portal:backup:restore", _("Backup restored")
    ACTIVITY_EXPORT = "portal:activity:export", _("Activity exported")
    ACTIVITY_PRUNE = "portal:activity:prune", _("Old activity removed")
    DEMO_RESET = "portal:demo:reset", _("Demo reset")


class Door(models.TextChoices):
    """The way by which an act came in."""

    PAGE = "page", _("Page")
    ADMIN = "admin", _("Admin site")
    API = "api", _("Program")
    COMMAND = "command", _("Command")
    PORTAL = "portal", _("Worker")  # the portal itself, or for the person who is named
    DATABASE = "database", _("Database")  # a statement that no part of the portal made
