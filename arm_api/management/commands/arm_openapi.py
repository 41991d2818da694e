"""`manage.py arm_openapi`: print the OpenAPI document of the door for programs."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand

from arm_api.openapi import document


class Command(BaseCommand):
    """Print the document (docs/arm-openapi.json is what it printed last)."""

    help = "Print the OpenAPI document of what this portal answers of Azure Resource Manager."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Print it."""
        self.stdout.write(json.dumps(document(), indent=1))
