"""Every address of the portal, grouped by the prefix it hangs under."""

from allauth.account import views as account
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from hotpatch_portal import outside, views

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
    # /preferences/
    path("preferences/", views.set_preferences, name="set-preferences"),
    # /accounts/ (nobody signs up by themselves; passwords are reset by an administrator)
    path("accounts/", views.account, name="account"),
    path("accounts/sessions/end/", views.sessions_end, name="sessions-end"),
    path("accounts/login/", account.login, name="account_login"),
    path("accounts/logout/", account.logout, name="account_logout"),
    path("accounts/password/change/", account.password_change, name="account_change_password"),
    path("accounts/password/set/", account.password_set, name="account_set_password"),
    # /admin/
    path("admin/", admin.site.urls),
]

handler500 = "ui.views.server_error"
