"""What selectors found, as the pictures of `ui` take it: every word that a picture says is chosen here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime

from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from patching.forecast import Hindrance, MonthForecast, Outlook
from patching.releases import expected_type, next_month, patch_tuesday
from patching.rollout import Gate
from patching.terms import HotpatchTrack, ReleaseType
from ui.charts import (
    Bar,
    Column,
    ColumnChart,
    Lane,
    Mark,
    Segment,
    Series,
    Shape,
    Span,
    Strip,
    Tone,
    day_words,
    month_ticks,
    number_words,
)
from ui.train import Band, Between, Certainty, Kind, Opening, Stop, Train
from updates.choices import RunPart
from updates.models import Freeze
from updates.selectors.bulk import BulkPage
from updates.selectors.calendar import Calendar, CalendarCell, CalendarRelease
from updates.selectors.fleet_forecast import Restarts
from updates.selectors.freezes import FreezeRow
from updates.selectors.machine_year import Done, MachineYear, NextReboot, Stretch
from updates.selectors.rollouts import RolloutPage
from updates.texts import RUN_PARTS
from vms.choices import HOTPATCH_TRACKS
from vms.texts import CAUSES, HINDRANCES

# --- the hotpatch calendar ---------------------------------------------------------------------------------------

# In the sample year the hotpatches of these months give way to an unplanned baseline.
SAMPLE_UNPLANNED = frozenset({5, 8})


def weekday_words(day: date) -> str:
    """A day with its weekday, as the reader's language writes it."""
    return date_format(day, pgettext("format of a day with its weekday", "D j M"))


def train_of(calendar: Calendar, freezes: Iterable[FreezeRow] = ()) -> Train:
    """The picture of a year of a product line, with these freezes as bands in it."""
    return Train(
        name="train",
        title=_("Hotpatch calendar of %(line)s, %(year)s") % {"line": calendar.line.title, "year": calendar.year},
        description=_(
            "%(planned)s planned and %(unplanned)s unplanned baselines, %(hotpatches)s hotpatches are recorded."
        )
        % {
            "planned": calendar.counts.planned_baselines,
            "unplanned": calendar.counts.unplanned_baselines,
            "hotpatches": calendar.counts.hotpatches,
        },
        stops=tuple(_stop(calendar, cell) for cell in calendar.cells),
        between=tuple(
            _between(cell, release) for cell in calendar.cells for release in cell.releases if release.is_out_of_band
        ),
        openings=tuple(
            Opening(
                opening.at,
                _("%(name)s opens %(when)s.")
                % {"name": opening.name, "when": timezone.localtime(opening.at).strftime("%Y-%m-%d %H:%M")},
            )
            for opening in (calendar.windows.openings if calendar.windows else ())
        ),
        now=calendar.now,
        bands=tuple(band for row in freezes if (band := _band(row.row, calendar.year)) is not None),
    )


def _band(freeze: Freeze, year: int) -> Band | None:
    """A freeze as it held, or will; None: not in this year, or ended before it began."""
    begins, ends = freeze.begins_at, min(freeze.ends_at, freeze.ended_at or freeze.ends_at)
    if ends <= begins or begins >= _start(date(year + 1, 1, 1)) or ends <= _start(date(year, 1, 1)):
        return None
    first, last = (timezone.localtime(at).strftime("%Y-%m-%d %H:%M") for at in (begins, ends))
    says = _("Frozen from %(begins)s until %(ends)s: %(name)s") % {"name": freeze.name, "begins": first, "ends": last}
    return Band(begins, ends, says, reverse("updates:freeze", args=[freeze.pk]))


def _stop(calendar: Calendar, cell: CalendarCell) -> Stop:
    month = cell.month.month
    kind, certainty = _kind(cell), _certainty(cell)
    machines = (calendar.machines or {}).get(month, Restarts())
    day = weekday_words(timezone.localtime(cell.at).date())
    name = _name(cell, certainty)
    effect = _effect(kind, certainty, machines)
    return Stop(
        starts=_start(month),
        ends=_start(next_month(month)),
        at=cell.at,
        kind=kind,
        certainty=certainty,
        day=day,
        what=kind_words(kind),
        name=name,
        effect=effect,
        says=" ".join(filter(None, (f"{day}: {kind_words(kind)}, {name}, {effect}.", _machine_words(machines)))),
        address=f"#month-{month:%Y-%m}",
    )


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=timezone.get_current_timezone())


def _kind(cell: CalendarCell) -> Kind:
    main = cell.month.main
    if main is None:
        if cell.is_before_all:
            return Kind.NOTHING
        if cell.is_after_end:
            return Kind.CUMULATIVE
        return Kind.PLANNED if cell.month.expected is ReleaseType.BASELINE else Kind.HOTPATCH
    if cell.month.is_unplanned_baseline:
        return Kind.UNPLANNED
    return Kind.PLANNED if main.type is ReleaseType.BASELINE else Kind.HOTPATCH


def _certainty(cell: CalendarCell) -> Certainty:
    main = cell.month.main
    if cell.is_missing:
        return Certainty.MISSING
    if main is None or main.is_scheduled:
        return Certainty.EXPECTED
    return Certainty.RECORDED if main.is_type_confirmed else Certainty.UNCONFIRMED


def kind_words(kind: Kind) -> str:
    """What a month brings, in a word."""
    return {
        Kind.PLANNED: _("Planned baseline"),
        Kind.UNPLANNED: _("Unplanned baseline"),
        Kind.HOTPATCH: _("Hotpatch"),
        Kind.CUMULATIVE: _("Cumulative update"),
        Kind.NOTHING: "–",
    }[kind]


def _name(cell: CalendarCell, certainty: Certainty) -> str:
    main = cell.month.main
    if certainty is Certainty.MISSING:
        return _("not recorded")
    if main is None:
        return _("expected")
    if main.kb_number:
        return f"KB{main.kb_number}"
    return _("announced") if main.is_scheduled else _("no KB recorded")


def _effect(kind: Kind, certainty: Certainty, machines: Restarts) -> str:
    if certainty is Certainty.MISSING:
        return _("not known")
    if count := machines[Outlook.WILL]:
        return ngettext("%(count)s restarts", "%(count)s restart", count) % {"count": number_words(count)}
    if count := machines[Hindrance.NOBODY_PATCHES]:
        return ngettext("%(count)s due", "%(count)s due", count) % {"count": number_words(count)}
    return _("no restart") if kind is Kind.HOTPATCH else pgettext("what a release does", "restarts")


def _machine_words(machines: Restarts) -> str:
    if not machines:
        return ""
    counted = {
        _("will restart"): machines[Outlook.WILL],
        _("may restart"): machines[Outlook.MAY],
        _("will not restart"): machines[Outlook.WILL_NOT],
        _("due, and nobody installs it"): machines[Hindrance.NOBODY_PATCHES],
        _("installed, waits for a restart (the reboot setting is Never)"): machines[Hindrance.NEVER_REBOOTS],
        _("not known"): machines[Outlook.NOT_KNOWN],
    }
    found = [f"{words} {number_words(count)}" for words, count in counted.items() if count]
    return _("Machines: %(list)s.") % {"list": ", ".join(found)}


def _between(cell: CalendarCell, release: CalendarRelease) -> Between:
    number = release.facts.kb_number
    says = f"{day_words(release.day)}: {release.type_label}" + (f", KB{number}." if number else ".")
    return Between(
        at=datetime(release.day.year, release.day.month, release.day.day, 12, tzinfo=timezone.get_current_timezone()),
        is_hotpatch=release.is_hotpatch,
        day=day_words(release.day),
        says=says,
        address=f"#month-{cell.month.month:%Y-%m}",
    )


# --- the sample year ---------------------------------------------------------------------------------------------


def sample_train() -> Train:
    """A year that never was: four planned baselines, eight hotpatches, two of them replaced by unplanned baselines."""
    return Train(
        name="sample",
        title=_("A sample year"),
        description=_("Four planned baselines, two unplanned ones and six hotpatches."),
        stops=tuple(_sample_stop(date(2001, number, 1)) for number in range(1, 13)),
    )


def _sample_stop(month: date) -> Stop:
    is_baseline = expected_type(month) is ReleaseType.BASELINE
    kind = Kind.PLANNED if is_baseline else Kind.UNPLANNED if month.month in SAMPLE_UNPLANNED else Kind.HOTPATCH
    effect = _("no restart") if kind is Kind.HOTPATCH else pgettext("what a release does", "restarts")
    day = date_format(month, "F", use_l10n=False)
    return Stop(
        starts=datetime(month.year, month.month, 1, tzinfo=UTC),
        ends=datetime(month.year, month.month, 28, tzinfo=UTC),
        at=patch_tuesday(month),
        kind=kind,
        certainty=Certainty.RECORDED,
        day=day,
        what=kind_words(kind),
        name={
            Kind.PLANNED: pgettext("a release", "baseline"),
            Kind.UNPLANNED: pgettext("a release", "unplanned"),
        }.get(kind, pgettext("a release", "hotpatch")),
        effect=effect,
        says=f"{day}: {kind_words(kind)}, {effect}.",
    )


# --- one machine -------------------------------------------------------------------------------------------------

_TONES = {
    HotpatchTrack.ON_TRACK: Tone.DONE,
    HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN: Tone.CALM,
    HotpatchTrack.BASELINE_DUE: Tone.ATTENTION,
    HotpatchTrack.WAITS_FOR_REBOOT: Tone.ATTENTION,
    HotpatchTrack.BASELINE_OVERDUE: Tone.FAILED,
    HotpatchTrack.OFF_TRACK_SINCE_KB: Tone.FAILED,
    HotpatchTrack.NOT_ON_TRAIN: Tone.QUIET,
    HotpatchTrack.NEWER_THAN_CATALOGUE: Tone.UNKNOWN,
    HotpatchTrack.UNKNOWN: Tone.UNKNOWN,
}
_TRACK_WORDS = dict(HOTPATCH_TRACKS)
_MOST_WINDOWS = 60


def strip_of(year: MachineYear) -> Strip:
    """The twelve months of a machine: its track, and what was done and comes as marks."""
    name = year.picture.vm.name
    return Strip(
        name="machine-year",
        title=_("Twelve months of %(name)s") % {"name": name},
        description=_("Three months back and nine ahead: hotpatch track, installations, restarts, windows."),
        start=year.start,
        end=year.end,
        lanes=(
            Lane(_("Track"), tuple(_span(stretch) for stretch in year.stretches)),
            Lane(
                _("Installations"),
                marks=(
                    *(_done(done, Shape.CIRCLE, Tone.DONE) for done in year.installations),
                    *(_done(done, Shape.CROSS, Tone.FAILED) for done in year.failures),
                ),
            ),
            Lane(
                _("Restarts"),
                marks=(
                    *(_done(done, Shape.REBOOT, Tone.DONE) for done in year.restarts),
                    *(_ahead(reboot) for reboot in year.reboots_ahead if reboot.at),
                    *(_hindered(month) for month in year.hindered),
                ),
            ),
            Lane(
                _("Maintenance"),
                marks=tuple(
                    Mark(year.place(at), window, Shape.SQUARE, Tone.CALM, real_at=at)
                    for window, at in year.windows[:_MOST_WINDOWS]
                ),
            ),
        ),
        ticks=month_ticks(year.start, year.end),
        now=year.today,
    )


def _span(stretch: Stretch) -> Span:
    word = str(_TRACK_WORDS[stretch.word])
    tone = _TONES[stretch.word]
    if not stretch.is_expected:
        return Span(stretch.start, stretch.end, word, tone)
    label = pgettext("a hotpatch track that is to come", "%(track)s, as far as foreseen") % {"track": word}
    return Span(stretch.start, stretch.end, label, Tone.CALM if tone is Tone.DONE else tone)


def _done(done: Done, shape: Shape, tone: Tone) -> Mark:
    kbs = ", ".join(f"KB{number}" for number in done.kb_numbers)
    label = " ".join(filter(None, (kbs, str(done.operation.get_kind_display()) if done.operation else "")))
    if tone is Tone.FAILED:
        label = _("%(what)s failed") % {"what": label}
    address = reverse("updates:operation", args=[done.operation.pk]) if done.operation else ""
    return Mark(done.place, label or _("installed"), shape, tone, address, real_at=done.at)


def _ahead(reboot: NextReboot) -> Mark:
    assert reboot.at is not None
    causes = ", ".join(str(CAUSES[cause]) for cause in reboot.month.causes)
    is_certain = reboot.month.outlook is Outlook.WILL
    words = _("restarts: %(why)s") if is_certain else _("may restart: %(why)s")
    return Mark(reboot.at, words % {"why": causes}, Shape.REBOOT, Tone.PLANNED if is_certain else Tone.CALM)


def _hindered(month: MonthForecast) -> Mark:
    assert month.hindrance is not None
    causes = ", ".join(str(CAUSES[cause]) for cause in month.causes)
    return Mark(patch_tuesday(month.month), f"{causes}: {HINDRANCES[month.hindrance]}", Shape.REBOOT, Tone.QUIET)


# --- runs on many machines ---------------------------------------------------------------------------------------

_PART_TONES = {
    RunPart.SUCCEEDED: Tone.DONE,
    RunPart.WITH_WARNINGS: Tone.ATTENTION,
    RunPart.CONTRADICTED: Tone.UNKNOWN,
    RunPart.FAILED: Tone.FAILED,
    RunPart.RUNNING: Tone.PLANNED,
    RunPart.WAITING: Tone.QUIET,
    RunPart.SKIPPED: Tone.CALM,
}
_SHOWN = {
    RunPart.CONTRADICTED: "contradicted",
    RunPart.FAILED: "failed",
    RunPart.RUNNING: "open",
    RunPart.WAITING: "open",
    RunPart.SKIPPED: "refused",
}
_STATES = {
    RunPart.SUCCEEDED: "succeeded",
    RunPart.WITH_WARNINGS: "succeeded",
    RunPart.CONTRADICTED: "failed",
    RunPart.FAILED: "failed",
    RunPart.RUNNING: "started",
    RunPart.WAITING: "waiting",
    RunPart.SKIPPED: "skipped",
}


def bar_of_bulk(page: BulkPage) -> Bar:
    """What became of the machines of a bulk request; those whose turn has not come wait, or are skipped where it never will."""
    parts = dict(page.parts)
    parts[RunPart.SKIPPED if page.request.is_handed_out else RunPart.WAITING] += page.not_asked
    parts[RunPart.SKIPPED] += page.request.removed_count
    return _bar(parts, {part: f"?show={name}" for part, name in _SHOWN.items()}, page.request.vm_count)


def bar_of_rollout(page: RolloutPage) -> Bar:
    """What became of the machines of a rollout; what was removed since is left empty."""
    return _bar(page.parts, {part: f"?state={name}" for part, name in _STATES.items()}, page.rollout.vm_count)


def _bar(parts: Mapping[RunPart, int], addresses: Mapping[RunPart, str], whole: int) -> Bar:
    return Bar(
        name="run-parts",
        title=_("Machines by what became of them"),
        segments=tuple(
            Segment(str(RUN_PARTS[part]), parts[part], _PART_TONES[part], addresses.get(part, ""))
            for part in RunPart
            if parts[part] or part in _ALWAYS
        ),
        whole=whole,
    )


_ALWAYS = frozenset({RunPart.SUCCEEDED, RunPart.FAILED})


def waves_of(page: RolloutPage) -> ColumnChart:
    """The waves of a rollout, each by what became of its machines, with its gate after the wave that has its turn."""
    shown = [part for part in RunPart if page.parts[part] or part in _ALWAYS]
    waves = page.shown_waves
    after_current = next((wave.number for wave in waves if wave.number > page.rollout.wave), None)
    is_going_on = page.rollout.finished_at is None
    return ColumnChart(
        name="wave-strip",
        title=_("Waves"),
        description=_("Each column is a wave: its machines by what became of them. The line is the gate."),
        head=_("Wave"),
        series=tuple(Series(str(RUN_PARTS[part]), _PART_TONES[part]) for part in shown),
        columns=tuple(
            Column(
                label=str(wave.number + 1),
                values=tuple(wave.parts[part] for part in shown),
                words=_("Wave %(number)s") % {"number": wave.number + 1},
                mark=gate_words(page.gate) if is_going_on and wave.number == after_current else "",
            )
            for wave in waves
        ),
    )


def gate_words(gate: Gate) -> str:
    """The arithmetic of a gate as it stands: “1 of 4 = 25 % > 5 %”."""
    return _("%(bad)s of %(ended)s = %(share)s %% %(sign)s %(limit)s %%") % {
        "bad": number_words(gate.bad),
        "ended": number_words(gate.ended),
        "share": f"{gate.percent:.1f}".removesuffix(".0"),
        "sign": ">" if gate.is_share_exceeded else "≤",
        "limit": gate.most_percent,
    }
