"""Every address of the portal, grouped by the prefix it hangs under."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from hotpatch_portal import outside

urlpatterns = [
    # / (the fleet's overview comes later; until then home is the list)
    path("", RedirectView.as_view(pattern_name="vms:vm-list"), name="home"),
    # /healthz, /readyz, /metrics
    *outside.urlpatterns,
    # /tour/ (of the demo)
    path("tour/", include("demo.urls")),
    # /virtual-machines/, /operations/, /calendar/
    path("virtual-machines/", include("vms.urls")),
    path("", include("updates.urls")),
    # /preferences/, /accounts/, /activity/
    path("", include("people.urls")),
    # /admin/
    path("admin/", admin.site.urls),
]

handler500 = "ui.views.server_error"
