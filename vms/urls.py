"""/virtual-machines/"""

from django.urls import path

from vms import views, views_imports, views_lists, views_ticks

app_name = "vms"
urlpatterns = [
    path("", views.vm_list, name="vm-list"),
    path("import/", views_imports.vm_import, name="vm-import"),
    path("import/<uuid:pk>/", views_imports.import_job, name="import-job"),
    path("import/<uuid:pk>/cancel/", views_imports.import_cancel, name="import-cancel"),
    path("import/<uuid:pk>/answers/", views_imports.import_answers, name="import-answers"),
    path("import/connections/<int:pk>/", views_imports.inventory_sync, name="inventory-sync"),
    path("suggestions/", views_lists.suggestions, name="suggestions"),
    path("columns/", views_lists.list_columns, name="list-columns"),
    path("ticks/", views_ticks.list_ticks, name="list-ticks"),
    path("views/save/", views_lists.view_save, name="view-save"),
    path("views/<int:pk>/", views_lists.view_open, name="view"),
    path("views/<int:pk>/edit/", views_lists.view_edit, name="view-edit"),
    path("views/<int:pk>/replace/", views_lists.view_replace, name="view-replace"),
    path("views/<int:pk>/remove/", views_lists.view_remove, name="view-remove"),
    path("export/", views.vm_export, name="vm-export"),
    path("images/", views.image_catalog, name="images"),
    path("create/", views.vm_create, name="vm-create"),
    path("<int:pk>/edit/", views.vm_edit, name="vm-edit"),
    path("<int:pk>/settings/", views.vm_settings, name="vm-settings"),
]
