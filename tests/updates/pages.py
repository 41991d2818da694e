"""What an operator does on the pages of updates, while the test plays the worker."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from tests.updates.world import make_due
from updates.engine.sweep import sweep
from updates.models import Operation
from vms.models import VirtualMachine


def settle() -> None:
    """Play the worker until nothing is open."""
    for _ in range(20):
        if not Operation.objects.open().exists():
            return
        make_due()
        sweep(seconds=5)
    pytest.fail(f"still open: {list(Operation.objects.open().values_list('kind', 'state'))}")


def assess(page: Client, vm: VirtualMachine) -> None:
    assert page.post(reverse("updates:assess", args=[vm.pk])).status_code == 302
    settle()


def wizard(page: Client, vm: VirtualMachine, go: str, **fields: object) -> Any:
    data = {
        "step": "updates",
        "go": go,
        "request_id": str(uuid4()),
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "maximum_minutes": "120",
    } | fields
    return page.post(reverse("updates:install", args=[vm.pk]), data)
