"""Form controls that are written without templates."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.test.html import parse_html

from ui.widgets import QuickSelect

CHOICES = [("", "All"), ("b", "B & <c>"), ("<", 'x"'), (3, "three")]


@pytest.mark.parametrize("value", [None, "", "b", "<", '"><script>', ["b"], 3, "3"])
@pytest.mark.parametrize("attrs", [None, {"id": "id_n", "required": True, "aria-invalid": "true"}])
def test_a_quick_select_is_what_django_writes(value: Any, attrs: dict[str, Any] | None) -> None:
    theirs = forms.Select(choices=CHOICES).render("n", value, attrs)
    assert parse_html(QuickSelect(choices=CHOICES).render("n", value, attrs)) == parse_html(theirs)
