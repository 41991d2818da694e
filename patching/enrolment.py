"""Whether a machine outside of Azure is enrolled for hotpatches (docs/rules.md)."""

from __future__ import annotations

from enum import StrEnum

from patching.eligibility import needs_licence

FEATURE = "Hotpatch"


class Subscription(StrEnum):
    """How far an enrolment is (ARM: LicenseProfileSubscriptionStatus)."""

    UNKNOWN = "Unknown"
    ENABLING = "Enabling"
    ENABLED = "Enabled"
    DISABLED = "Disabled"
    DISABLING = "Disabling"
    FAILED = "Failed"


class SubscriptionRequest(StrEnum):
    """What a caller asks of an enrolment (ARM: LicenseProfileSubscriptionStatusUpdate)."""

    ENABLE = "Enable"
    DISABLE = "Disable"


def is_hotpatch(feature: str) -> bool:
    """Whether this feature of a licence is the one for hotpatches, whatever its case."""
    return feature.lower() == FEATURE.lower()


def is_hotpatching_on(edition: str, *, subscription: str, is_chosen: bool | None) -> bool:
    """Whether hotpatches are on: where the edition needs it, the machine is enrolled, and nobody has switched them off.

    `is_chosen`: `enableHotpatching` of its patch settings; None: not told.
    """
    if not needs_licence(edition):
        return bool(is_chosen)
    return subscription.lower() == Subscription.ENABLED.lower() and is_chosen is not False


def subscription_of(*, is_on: bool, is_wanted: bool, is_under_way: bool) -> Subscription:
    """How far an enrolment is of which the portal knows whether it is there, whether it shall be, and who works on that."""
    if is_on is is_wanted:
        return Subscription.ENABLED if is_on else Subscription.DISABLED
    if not is_under_way:
        return Subscription.FAILED
    return Subscription.ENABLING if is_wanted else Subscription.DISABLING
