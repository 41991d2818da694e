"""The numbers of the calendar are those of the lists that it leads to, for every reader."""

from __future__ import annotations

import random
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from patching.terms import ProductLine
from tests.updates.fleets import NOW, make_fleet, readers
from updates.selectors.calendar import load_calendar
from vms.filters import VmFilter

pytestmark = pytest.mark.django_db
LIST = reverse("vms:vm-list")


def listed(user: User, address: str) -> int:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    filters = VmFilter.of(user, asked)
    assert not filters.problems(), address
    return int(filters.found.count())


@pytest.mark.parametrize(("seed", "groups"), [(51, 6), (52, 60)])
def test_the_calendar_counts_just_the_machines_that_it_leads_to(client: Client, seed: int, groups: int) -> None:
    with time_machine.travel(NOW, tick=False):
        make_fleet(seed, groups_count=groups, count=80)
        months = 0
        for name, user in readers(random.Random(seed)).items():
            client.force_login(user)
            for line in (ProductLine.WS2022, ProductLine.WS2025):
                page = client.get(reverse("updates:calendar"), {"line": line.value, "year": "2026"}).content.decode()
                for address, number in re.findall(rf'<a href="({LIST}\?[^"]*)"[^>]*>\s*(\d+)', page):
                    assert int(number) == listed(user, unescape(address)), (name, address)
                here = listed(user, f"{LIST}?product_line={line.value}")
                machines = load_calendar(user, {"line": line.value, "year": "2026"}, NOW).machines
                assert machines is not None
                for month, outlooks in machines.items():
                    assert sum(outlooks.values()) <= here, (name, line, month)
                    months += 1
        assert months > 20
