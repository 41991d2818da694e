"""Every address of the portal, grouped by the prefix it hangs under."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    # /admin/
    path("admin/", admin.site.urls),
    # /accounts/ (sign-in; nobody signs up by themselves)
    path("accounts/", include("allauth.account.urls")),
]
