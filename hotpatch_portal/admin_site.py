"""Django's admin app with our site: its rule holds for every class that anybody registers."""

from django.contrib.admin.apps import AdminConfig


class PortalAdminConfig(AdminConfig):
    """The admin app; `ui.admin.PortalAdminSite` says what its pages may look up and show."""

    default_site = "ui.admin.PortalAdminSite"
