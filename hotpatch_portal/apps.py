"""The composition root as a Django app: it brings commands and the system checks."""

from django.apps import AppConfig


class HotpatchPortalConfig(AppConfig):
    """Registers the portal's system checks."""

    name = "hotpatch_portal"

    def ready(self) -> None:
        """Import the checks, which register themselves."""
        from hotpatch_portal import checks  # noqa: F401
