"""The pictures of the overview: the last days, the months ahead, and the shares of its tiles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from patching.releases import second_tuesday
from ui.charts import Bar, Column, ColumnChart, Segment, Series, Tone, day_words
from updates.selectors.fleet_days import SHOWN_DAYS, Standings
from updates.selectors.fleet_forecast import FleetForecast, MonthAhead
from updates.selectors.overview import Overview, Tile, TileName
from updates.selectors.overview_running import Running


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the page draws; `days` is None where no days are kept."""

    tiles: tuple[tuple[Tile, Bar], ...]
    days: ColumnChart | None
    months: ColumnChart
    running: tuple[tuple[Running, Bar | None], ...]  # no bar where nobody counted


def pictures_of(page: Overview) -> Pictures:
    """Draw what the overview counts."""
    return Pictures(
        tiles=tuple((tile, _share(tile)) for tile in page.tiles),
        days=days_picture(page.days) if page.are_days_kept else None,
        months=months_picture(page.forecast),
        running=tuple(
            (running, _progress(number, running)) for number, running in enumerate((*page.rollouts, *page.requests))
        ),
    )


_TILES = {
    TileName.UPDATES: (gettext_lazy("Updates available"), Tone.PLANNED),
    TileName.ON_TRACK: (gettext_lazy("On the hotpatch track"), Tone.DONE),
    TileName.REBOOT: (gettext_lazy("Reboot required"), Tone.ATTENTION),
    TileName.NO_DATA: (gettext_lazy("Not assessed for 7 days"), Tone.QUIET),
}


def _share(tile: Tile) -> Bar:
    words, tone = _TILES[tile.name]
    label = str(words)
    segment = Segment(label, tile.count, tone)
    return Bar(f"tile-{tile.name.value}", label, (segment,), whole=tile.whole, is_legend_shown=False)


def _progress(number: int, running: Running) -> Bar | None:
    if not running.is_counted:
        return None
    well = _("Ended well or skipped") if running.rollout else _("Ended")
    segments = (
        Segment(well, running.well, Tone.DONE),
        Segment(_("Failed"), running.failed, Tone.FAILED),
        Segment(_("Running"), running.at_work, Tone.PLANNED),
    )
    title = str(running.rollout or _("Bulk request"))
    return Bar(f"running-{number}", title, segments, whole=running.total, is_legend_shown=False)


def days_picture(days: tuple[Standings, ...]) -> ColumnChart:
    """The shares of the last thirty days; days of which nothing was kept have no column."""
    known = {row.day: row for row in days}
    last = days[-1].day
    shown = [last - timedelta(days=back) for back in reversed(range(SHOWN_DAYS))]
    return ColumnChart(
        name="days",
        title=_("Compliance, last 30 days"),
        description=_(
            "For each day the shares of machines that lack nothing, that lack updates, and that lack Critical or Security updates for more than a week."
        ),
        head=_("Day"),
        series=(
            Series(_("Nothing missing"), Tone.CALM),
            Series(_("Updates missing"), Tone.QUIET),
            Series(_("Critical or Security missing for more than 7 days"), Tone.ATTENTION),
            Series(_("No data"), Tone.UNKNOWN),
        ),
        columns=tuple(_day(day, known.get(day)) for day in shown),
        is_share=True,
    )


def _day(day: date, row: Standings | None) -> Column:
    values = None
    if row is not None:
        values = (row.up_to_date, row.other + row.critical - row.critical_late, row.critical_late, row.no_data)
    is_tuesday = day == second_tuesday(day.replace(day=1))
    mark = _("Patch Tuesday, %(day)s") % {"day": day_words(day)} if is_tuesday else ""
    return Column(day_words(day), values, words=date_format(day, "DATE_FORMAT"), mark=mark)


def months_picture(forecast: FleetForecast) -> ColumnChart:
    """How many machines reboot in the coming months, by the day of each Patch Tuesday."""
    return ColumnChart(
        name="months",
        title=_("Reboots ahead"),
        description=_(
            "For each coming month how many machines will reboot, may reboot, and of how many it is not known."
        ),
        head=_("Patch Tuesday"),
        series=(
            Series(_("Will reboot"), Tone.PLANNED),
            Series(_("May reboot"), Tone.CALM),
            Series(_("Not known"), Tone.UNKNOWN),
        ),
        columns=tuple(_month(month) for month in forecast.months),
    )


def _month(month: MonthAhead) -> Column:
    caption = _("baseline") if month.is_baseline else _("hotpatch")
    words = date_format(month.patch_tuesday, "DATE_FORMAT")
    return Column(
        day_words(month.patch_tuesday),
        (month.will, month.may, month.not_known),
        caption=caption,
        words=f"{words} · {caption}",
    )
