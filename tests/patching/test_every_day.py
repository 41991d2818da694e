"""Every day of the recorded data, every reachable state, every kind of list (docs/rules.md, Hotpatch track).

What is true of a state is worked out here from the releases themselves; the code is only asked what it says of it. A state is
the cumulative update in effect, the hotpatch on it, and a cumulative update that waits for its reboot. Sets of KBs that differ
only in superseded releases are one state. On days on which something comes out, or a Patch Tuesday passes, every state is
judged; on the days between nothing that is known changes, and a rotating sample is judged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest

from patching.forecast import RebootCause, forecast_reboots
from patching.orchestrator import Patcher
from patching.releases import Timetable, as_of, timetable
from patching.rollback import RollbackOrder, plan_rollback_on
from patching.selection import guard_for
from patching.terms import (
    DUE_WORDS,
    ON_TRACK_WORDS,
    HotpatchTrack,
    ProductLine,
    RebootSetting,
    Release,
    ReleaseType,
)
from patching.track import Contradiction, TrackVerdict, judge_track_on
from tests.patching.recorded import releases

NOW = datetime(2026, 11, 27, tzinfo=UTC)
LAST_DAY = date(2026, 11, 27)
HOTPATCHES = {ReleaseType.HOTPATCH, ReleaseType.OOB_HOTPATCH}
LCUS = {ReleaseType.LCU, ReleaseType.OOB_LCU}
SAMPLE = 97  # of so many states one is judged on a day on which nothing comes out


@dataclass(frozen=True)
class State:
    """What a machine has: `full` is in effect, `hot` on it, `waits` is installed and not rebooted."""

    full: Release
    base: Release | None  # the baseline under `full`, itself where it is one
    hot: Release | None
    waits: Release | None

    @property
    def build(self) -> str:
        """The build that runs: an out-of-band hotpatch without a recorded one leaves it as it was."""
        return (self.hot.build if self.hot else "") or self.full.build

    def kbs(self) -> tuple[tuple[str, bool, frozenset[str]], ...]:
        """The lists that a connector may tell of it: name, completeness, KBs."""
        told = {r.kb_number for r in (self.full, self.hot, self.waits) if r is not None and r.kb_number}
        newest = self.waits or self.hot or self.full
        return (
            ("complete", True, frozenset(told | ({self.base.kb_number} if self.base else set())) - {""}),
            ("partial", False, frozenset({newest.kb_number} - {""})),
            ("empty", False, frozenset()),
        )


def rows_of(line: ProductLine) -> list[Release]:
    """The released rows of a line, oldest first, without a look at the code that is tested."""
    kinds = [ReleaseType.BASELINE, ReleaseType.HOTPATCH, ReleaseType.OOB_HOTPATCH, ReleaseType.LCU, ReleaseType.OOB_LCU]
    own = [r for r in releases() if r.product_line is line and not r.is_scheduled]
    return sorted(own, key=lambda r: (r.released_on, kinds.index(r.type), r.kb_number))


def states(rows: list[Release]) -> Iterator[State]:
    """Every state that a machine can be in once these rows are out."""
    place = {row: number for number, row in enumerate(rows)}
    fulls = [r for r in rows if r.type not in HOTPATCHES and r.build]
    baselines = [r for r in fulls if r.type is ReleaseType.BASELINE]
    for full in fulls:
        under = [b for b in baselines if place[b] <= place[full]]
        base = under[-1] if under else None
        following = next((place[b] for b in baselines if place[b] > place[full]), len(rows))
        hots = [r for r in rows[place[full] + 1 : following] if r.type in HOTPATCHES] if base else []
        for hot in (None, *hots):
            top = place[hot or full]
            later = [r for r in fulls if place[r] > top and r.kb_number]
            # What waits: the newest baseline, and the newest cumulative updates; older ones are superseded.
            waiting = dict.fromkeys([*[r for r in later if r.type is ReleaseType.BASELINE][-1:], *later[-2:]])
            for waits in (None, *waiting):
                yield State(full, base, hot, waits)


def missing_after(rows: list[Release], baseline: Release, day: date) -> bool:
    """Whether a month after the baseline's has passed its second Tuesday without a recorded baseline or hotpatch."""
    told = {r.month for r in rows if r.type in {ReleaseType.BASELINE, ReleaseType.HOTPATCH}}
    month = (baseline.month + timedelta(days=32)).replace(day=1)
    while month <= day:
        tuesday = next(month + timedelta(days=n) for n in range(7, 14) if (month + timedelta(days=n)).weekday() == 1)
        if tuesday <= day and month not in told:
            return True
        month = (month + timedelta(days=32)).replace(day=1)
    return False


class Day:
    """What is out on a day, and what the rules say of machines then. They are pure: the same facts are asked once a day."""

    def __init__(self, day: date, rows: list[Release], known: Timetable) -> None:
        self.day, self.rows, self.known = day, rows, known
        self.place = {row: number for number, row in enumerate(rows)}
        self.baseline = next((r for r in reversed(rows) if r.type is ReleaseType.BASELINE), None)
        self.is_one_missing = self.baseline is not None and missing_after(rows, self.baseline, day)
        self._judged: dict[tuple[frozenset[str], str, bool, bool | None], TrackVerdict] = {}

    def judge(self, kbs: frozenset[str], build: str, *, is_complete: bool, told: bool | None) -> TrackVerdict:
        facts = kbs, build, is_complete, told
        if facts not in self._judged:
            self._judged[facts] = judge_track_on(
                self.known,
                is_hotpatch_on=True,
                installed_kbs=kbs,
                os_build=build,
                is_list_complete=is_complete,
                is_reboot_pending=told,
            )
        return self._judged[facts]


def is_behind(state: State, baseline: Release, place: dict[Release, int]) -> bool:
    return place[state.full] < place[baseline]


def check(state: State, day: Day, counts: Counter[str]) -> None:
    """One state on one day, with every list and every word about a pending reboot."""
    place, baseline = day.place, day.baseline
    if baseline is None:
        return
    behind = is_behind(state, baseline, place)
    # An LCU that waits and is in no list shows itself only after the reboot, which no way back foresees.
    is_hidden = state.waits is not None and state.waits.type in LCUS and place[state.waits] > place[baseline]
    for name, is_complete, kbs in state.kbs():
        assert_rollback(state, day.known, kbs, is_complete=is_complete, where=(day.day, name, state))
        for told in (True, None) if state.waits else (False, None):
            verdict = day.judge(kbs, state.build, is_complete=is_complete, told=told)
            counts["judgements"] += 1
            where = (day.day, name, told, state, verdict)
            if verdict.track in ON_TRACK_WORDS:
                assert not behind, where
                assert (verdict.track is HotpatchTrack.ON_TRACK) is not day.is_one_missing, where
            if is_complete:
                assert_complete(state, verdict, baseline, place, where)
            if verdict.track in DUE_WORDS | ON_TRACK_WORDS and not is_hidden:
                counts["ways back"] += 1
                assert_way_back(state, day, verdict, kbs, is_complete=is_complete, where=where)


def assert_complete(
    state: State, verdict: TrackVerdict, baseline: Release, place: dict[Release, int], where: object
) -> None:
    """With a complete list the verdict is what is true."""
    is_off = state.full.type in LCUS and place[state.full] > place[baseline]
    waits_for_newer = state.waits is not None and place[state.waits] >= place[baseline]
    if is_off:
        assert verdict.track is HotpatchTrack.OFF_TRACK_SINCE_KB, where
        assert verdict.off_since == state.full, where
    elif state.waits == baseline:
        assert verdict.track is HotpatchTrack.WAITS_FOR_REBOOT, where
    elif waits_for_newer:
        # Where a hotpatch lifts the build above the LCU's, nothing shows that it still waits: it counts as taken.
        is_told = verdict.contradiction is Contradiction.LCU_WAITS_FOR_REBOOT
        assert is_told or verdict.off_since == state.waits, where
    elif is_behind(state, baseline, place):
        assert verdict.track in {HotpatchTrack.BASELINE_DUE, HotpatchTrack.BASELINE_OVERDUE}, where
    else:
        assert verdict.track in ON_TRACK_WORDS, where


def assert_way_back(
    state: State, day: Day, verdict: TrackVerdict, kbs: frozenset[str], *, is_complete: bool, where: object
) -> None:
    """What is offered leads to "on track" (as far as known): installed as named, and rebooted."""
    if verdict.is_kb_missing and not verdict.way_back:
        return
    gained = frozenset(release.kb_number for release in verdict.way_back)
    builds = [release.build for release in (state.waits, *verdict.way_back) if release is not None and release.build]
    build = builds[-1] if builds else state.build
    after = day.judge(kbs | gained, build, is_complete=is_complete, told=False)
    assert after.track in ON_TRACK_WORDS, (where, after)
    # After the reboot that a baseline waited for, the newest hotpatch on it comes next; else nothing is left.
    assert not after.way_back or verdict.track is HotpatchTrack.WAITS_FOR_REBOOT, (where, after)


def assert_rollback(state: State, known: Timetable, kbs: frozenset[str], *, is_complete: bool, where: object) -> None:
    order = plan_rollback_on(known, installed_kbs=kbs, os_build=state.build, is_list_complete=is_complete)
    if not isinstance(order, RollbackOrder):
        return
    assert is_complete, where
    assert order.target_kb not in order.uninstall_kbs, where
    newest = state.waits or state.hot or state.full
    gone = [r for r in known.out if r.kb_number in order.uninstall_kbs]
    assert newest in gone, where
    assert all(r == newest for r in gone if r.type is ReleaseType.BASELINE), where


def check_forecast(state: State, day: Day, counts: Counter[str]) -> None:
    """A forecast uses nothing that is unknown on its day: without everything later it is the same, and names no past."""
    _name, is_complete, kbs = state.kbs()[0]
    known = day.known
    verdict = day.judge(kbs, state.build, is_complete=is_complete, told=None)
    unknowing = [r for r in releases() if r.is_scheduled or r.released_on <= day.day]
    told = [
        forecast_reboots(
            rows,
            known.line,
            verdict,
            [],
            is_reboot_pending=False,
            as_of=known.moment,
            months=7,
            reboot_setting=RebootSetting.IF_REQUIRED,
            patcher=Patcher.PORTAL_AUTOMATICALLY,
            guard=guard_for(verdict, rows, known.line, known.moment),
        )
        for rows in (releases(), unknowing)
    ]
    counts["forecasts"] += 1
    assert told[0] == told[1], (day.day, state)
    assert told[0][0].month == day.day.replace(day=1)
    for item in told[0]:
        assert RebootCause.UNPLANNED_BASELINE not in item.causes, (day.day, state)
        if RebootCause.PLANNED_BASELINE in item.causes:
            assert item.month.month in {1, 4, 7, 10}


@pytest.mark.no_cover  # the tables of docs/rules.md reach every branch; to watch this walk would make it four times as long
@pytest.mark.parametrize(
    ("line", "first"), [(ProductLine.WS2022, date(2022, 1, 1)), (ProductLine.WS2025, date(2024, 10, 1))]
)
def test_every_day_of_the_recorded_data(line: ProductLine, first: date, record_property: pytest.RecordProperty) -> None:
    began, counts = time.perf_counter(), Counter[str]()
    every = rows_of(line)
    date_of_day, before = first, (0, False)
    reachable: list[State] = []
    while date_of_day <= LAST_DAY:
        rows = [r for r in every if r.released_on <= date_of_day]
        day = Day(date_of_day, rows, timetable(releases(), line, as_of(date_of_day, NOW)))
        now = (len(rows), day.is_one_missing)
        if is_new := now != before:
            reachable = list(states(rows))
            before = now
        for number, state in enumerate(reachable):
            if is_new or (number + date_of_day.toordinal()) % SAMPLE == 0:
                check(state, day, counts)
        if reachable:
            check_forecast(reachable[date_of_day.toordinal() % len(reachable)], day, counts)
            check_forecast(reachable[-1], day, counts)
        counts["days"] += 1
        date_of_day += timedelta(days=1)
    counts["states"] = len(reachable)
    seconds = time.perf_counter() - began
    record_property("counts", {**counts, "seconds": round(seconds, 1)})
    print(f"{line}: {dict(counts)} in {seconds:.1f} s")  # noqa: T201 (the note of the change quotes it)
    assert counts["judgements"] > 1_000
