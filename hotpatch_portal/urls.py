"""Every address of the portal, grouped by the prefix it hangs under."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from hotpatch_portal.tour import demo_reset, tour

urlpatterns = [
    # / (the fleet's overview comes later; until then home is the list)
    path("", RedirectView.as_view(pattern_name="vms:vm-list"), name="home"),
    # /tour/ (of the demo)
    path("tour/", tour, name="tour"),
    path("tour/reset/", demo_reset, name="demo-reset"),
    # /virtual-machines/, /operations/, /calendar/
    path("virtual-machines/", include("vms.urls")),
    path("", include("updates.urls")),
    # /preferences/, /accounts/, /activity/
    path("", include("people.urls")),
    # /admin/
    path("admin/", admin.site.urls),
]

handler500 = "ui.views.server_error"
