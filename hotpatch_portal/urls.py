"""Every address of the portal, grouped by the prefix it hangs under."""

from django.contrib import admin
from django.urls import include, path

from hotpatch_portal import outside
from updates.views.overview import overview

urlpatterns = [
    # / (the overview of the fleet)
    path("", overview, name="home"),
    # /healthz, /readyz, /metrics
    *outside.urlpatterns,
    # /tour/ (of the demo)
    path("tour/", include("demo.urls")),
    # /virtual-machines/, /operations/, /calendar/
    path("virtual-machines/", include("vms.urls")),
    path("", include("updates.urls")),
    # /preferences/, /accounts/, /activity/
    path("", include("people.urls")),
    # /subscriptions, /tenants, /providers, /metadata, /TENANT/oauth2 (programs, as they ask Azure)
    path("", include("arm_api.urls")),
    # /admin/
    path("admin/", admin.site.urls),
]

handler500 = "ui.views.server_error"
