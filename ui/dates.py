"""Days as people type them: of the years 2000 to 2100, anywhere (docs/rules.md)."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator

from patching.recurrence import FIRST_DAY, LAST_DAY

# For the fields of models, too.
DAY_VALIDATORS = (MinValueValidator(FIRST_DAY), MaxValueValidator(LAST_DAY))


class DayField(forms.DateField):
    """A day, typed or picked; an error of the form outside of the years that mean something."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.DateInput(
            attrs={"type": "date", "min": FIRST_DAY.isoformat(), "max": LAST_DAY.isoformat()}, format="%Y-%m-%d"
        )
        super().__init__(widget=widget, validators=DAY_VALIDATORS, **kwargs)
