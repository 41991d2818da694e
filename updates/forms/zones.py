"""Time zones as people choose them: Windows' names, with what their clocks show now; the reader's own first."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from patching.recurrence import instant_of, windows_name, windows_zones, zone_of
from updates.texts import OWN_CLOCK_WORDS


def reader_zone() -> str:
    """What Windows calls the reader's time zone."""
    return windows_name(timezone.get_current_timezone_name())


def zone_choices() -> list[tuple[str, str]]:
    """Every time zone of Windows with its offset and its city, from west to east; the reader's before them."""
    labels = _labels(timezone.now().replace(minute=0, second=0, microsecond=0))
    mine = reader_zone()
    return [("", "–"), (mine, labels[mine]), *((name, label) for name, label in labels.items() if name != mine)]


@lru_cache(maxsize=2)
def _labels(now: datetime) -> dict[str, str]:
    zones = {name: zone_of(name) for name in windows_zones()}
    offsets = {name: now.astimezone(zone).utcoffset() or timedelta(0) for name, zone in zones.items()}
    ordered = sorted(zones, key=lambda name: (offsets[name], name))
    return {name: f"{name} ({offset_words(offsets[name])}, {zones[name].key})" for name in ordered}


def offset_words(offset: timedelta) -> str:
    """How far a clock is from UTC, e.g. UTC+09:00."""
    minutes = round(offset.total_seconds() / 60)
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


OWN_CLOCK = "own"  # in place of a zone of Windows, none of which is called so


def zone_or_own_choices() -> list[tuple[str, str]]:
    """The same, and each machine's own clock after the reader's zone."""
    first, mine, *others = zone_choices()
    return [first, mine, (OWN_CLOCK, str(OWN_CLOCK_WORDS)), *others]


class ZoneFields(forms.Form):
    """Wall clocks of a time zone, the reader's where nothing is chosen."""

    time_zone = forms.ChoiceField(label=_("Time zone"), choices=zone_choices)

    def instant(self, day: str, time: str) -> datetime | None:
        """The instant that two valid fields say on the clocks of the zone; None while one of the three is missing."""
        fields = self.cleaned_data
        if not (fields.get(day) and fields.get(time) is not None and fields.get("time_zone")):
            return None
        return instant_of(datetime.combine(fields[day], fields[time]), zone_of(fields["time_zone"]))
