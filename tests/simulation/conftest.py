"""What the tests of the simulation share."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command


@pytest.fixture
def recorded(db: None) -> None:
    """The recorded catalogue."""
    call_command("seed_catalogue", stdout=StringIO())
