"""/virtual-machines/<pk>/, /operations/ and /calendar/"""

from django.urls import path

from updates.views import calendar, operation, vm

app_name = "updates"
urlpatterns = [
    # /virtual-machines/<pk>/
    path("virtual-machines/<int:pk>/", vm.overview, name="vm-overview"),
    path("virtual-machines/<int:pk>/activity/", vm.activity, name="activity"),
    path("virtual-machines/<int:pk>/remove/", vm.remove, name="remove"),
    path("virtual-machines/<int:pk>/updates/", vm.blade, name="blade"),
    path("virtual-machines/<int:pk>/updates/assess/", vm.assess, name="assess"),
    path("virtual-machines/<int:pk>/updates/install/", vm.install, name="install"),
    # /operations/
    path("operations/<uuid:pk>/", operation.detail, name="operation"),
    path("operations/<uuid:pk>/cancel/", operation.cancel, name="cancel"),
    # /calendar/
    path("calendar/", calendar.calendar, name="calendar"),
]
