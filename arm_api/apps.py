"""The door for programs as a Django app."""

from django.apps import AppConfig


class ArmApiConfig(AppConfig):
    """It has no tables: principals are in `vms`, operations in `updates`."""

    name = "arm_api"
