"""/preferences/"""

from django.urls import path

from ui import views

app_name = "ui"
urlpatterns = [
    path("theme/", views.set_theme, name="set-theme"),
]
