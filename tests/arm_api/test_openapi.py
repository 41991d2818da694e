"""The OpenAPI document is that of the routes, whole, and refers to nothing that is not in it."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

from django.core.management import call_command

from arm_api.openapi import document
from arm_api.routes import ROUTES

KEPT = Path(__file__).resolve().parents[2] / "docs" / "arm-openapi.json"


def test_the_document_that_is_kept_is_the_one_that_is_printed() -> None:
    printed = StringIO()
    call_command("arm_openapi", stdout=printed)
    assert json.loads(printed.getvalue()) == document() == json.loads(KEPT.read_text())


def test_every_operation_is_in_it() -> None:
    found = {one["operationId"] for path in document()["paths"].values() for one in path.values()}
    assert found == {route.name for route in ROUTES}


def test_it_refers_to_what_it_has() -> None:
    whole = document()
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(whole))):
        place = whole
        for name in reference.split("/"):
            place = place[name]
