"""Addresses of the inventory."""

from django.urls import URLPattern

app_name = "vms"
urlpatterns: list[URLPattern] = []
