"""/virtual-machines/"""

from django.urls import path

from vms import views

app_name = "vms"
urlpatterns = [
    path("", views.vm_list, name="vm-list"),
    path("import/", views.vm_import, name="vm-import"),
    path("export/", views.vm_export, name="vm-export"),
    path("images/", views.image_catalog, name="images"),
    path("create/", views.vm_create, name="vm-create"),
    path("<int:pk>/edit/", views.vm_edit, name="vm-edit"),
    path("<int:pk>/settings/", views.vm_settings, name="vm-settings"),
]
