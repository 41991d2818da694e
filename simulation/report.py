"""What a simulation shows, as text: the same seed gives the same words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median

from patching.terms import OperationKind
from simulation.checker import (
    AVAILABILITY_RULES,
    UNFINISHED,
    Coverage,
    Findings,
    Install,
    Place,
    Rule,
    Work,
    check,
)
from simulation.days import Difference, Key, Offer, Standing, Told, compare, recompute
from simulation.run import Outcome
from simulation.train import Train, table

SHOWN = 20


# The clocks of the machines (bench/fleet.py gives each its Windows time zone), by the names of the tz database.
CLOCKS = {
    "UTC": "UTC",
    "Tokyo Standard Time": "Asia/Tokyo",
    "W. Europe Standard Time": "Europe/Berlin",
    "GMT Standard Time": "Europe/London",
    "Eastern Standard Time": "America/New_York",
    "Pacific Standard Time": "America/Los_Angeles",
    "AUS Eastern Standard Time": "Australia/Sydney",
}


def judge(outcome: Outcome) -> Findings:
    """Let the checker judge what the machines went through, by its own table of releases."""
    return check(
        places_of(outcome),
        works_of(outcome),
        table(),
        [(power.machine, power.off_at, power.on_at or outcome.ends) for power in outcome.power],
        begins=outcome.begins,
        ends=outcome.ends,
    )


def places_of(outcome: Outcome) -> list[Place]:
    """The static facts of the fleet."""
    train = Train(table())
    return [
        Place(
            name=machine.name,
            region=machine.region,
            clock=CLOCKS[machine.time_zone],
            line=machine.line.value,
            zone=machine.zone,
            availability_set=machine.availability_set,
            subscription=str(machine.subscription),
            group=machine.group,
            is_automatic=machine.is_automatic,
            has_hotpatch=machine.is_hotpatch_on,
            is_on_train=train.stands_on(machine.line.value, machine.build, outcome.begins),
            build=machine.build,
        )
        for machine in outcome.machines
    ]


def works_of(outcome: Outcome) -> Iterator[Work]:
    """The runs of the ledger; one that never ended counts as at work for as long as it was given."""
    ledger = outcome.ledger
    for course in ledger.courses.values():
        yield Work(
            machine=outcome.places[course.vm_id],
            begins=course.began_at,
            ends=course.ended_at,
            installs=tuple(
                Install(step.kb_number, step.begins, step.ends, step.has_failed)
                for step in course.steps
                if step.what == "installing"
            ),
            reboots=tuple((step.begins, step.ends) for step in course.steps if step.what == "rebooting"),
        )
    silent = {
        request_id: (vm_id, at, longest)
        for request_id, vm_id, kind, at, longest in reversed(ledger.lines)
        if kind is not OperationKind.ASSESSMENT and request_id not in ledger.courses
    }
    for vm_id, at, longest in silent.values():
        # It may have worked for as long as it was told, and no longer: that is what a window that ends means.
        yield Work(machine=outcome.places[vm_id], begins=at, ends=at + (longest or UNFINISHED))


def days_of(outcome: Outcome) -> dict[Key, Standing]:
    """What the portal must have kept of each day."""
    return recompute(places_of(outcome), told_of(outcome), works_of(outcome), outcome.midnights, Train(table()))


def judge_days(outcome: Outcome) -> list[Difference]:
    """Where the portal's snapshots of the days differ from what the machines said and went through."""
    return compare(outcome.snapshots, days_of(outcome))


def told_of(outcome: Outcome) -> list[Told]:
    """What the machines said, in the order in which they did."""
    offers: dict[int, tuple[Offer, ...]] = {}  # machines in the same situation share one tuple
    for answer in outcome.ledger.answers:
        if id(answer.available) not in offers:
            offers[id(answer.available)] = tuple(
                Offer(patch.kb_number, patch.classification.value, patch.published_on) for patch in answer.available
            )
    return [
        Told(outcome.places[answer.vm_id], answer.at, offers[id(answer.available)], answer.is_reboot_pending)
        for answer in outcome.ledger.answers
    ]


def words_of(outcome: Outcome, findings: Findings, differences: Sequence[Difference]) -> str:
    """The report."""
    return "\n".join(_lines(outcome, findings, differences)) + "\n"


def _lines(outcome: Outcome, findings: Findings, differences: Sequence[Difference]) -> Iterator[str]:
    machines = outcome.machines
    automatic = sum(machine.is_automatic for machine in machines)
    on = sum(machine.is_automatic and machine.is_hotpatch_on for machine in machines)
    yield f"{outcome.begins:%Y-%m-%d} to {outcome.ends - timedelta(days=1):%Y-%m-%d}"
    yield (
        f"{len(machines)} machines in {len({m.region for m in machines})} regions, "
        f"{len({m.availability_set for m in machines} - {''})} availability sets, "
        f"{len({m.subscription for m in machines})} subscriptions, {len({m.group for m in machines} - {''})} "
        f"anti-affinity groups; {automatic} patched automatically, {on} of them with hotpatch"
    )
    yield (
        f"{outcome.assessments} assessments, {outcome.installations} installations in {outcome.rollouts} rollouts, "
        f"{outcome.misfortunes} misfortunes, {len(outcome.power)} times a machine was off; "
        f"at most {findings.most_at_once} machines at work at once"
    )
    yield from _checks(findings)
    yield from _days(outcome, differences)
    yield from _coverage(findings.coverage)
    yield from _reboots(outcome, findings)
    yield from _train(findings)
    yield ""
    yield f"Rollouts paused, and resumed by a person: {len(outcome.pauses)}"
    yield from (f"  {at:%Y-%m-%d %H:%M}  {name}" for at, name in outcome.pauses[:SHOWN])
    if findings.violations:
        yield ""
        yield f"The first of {len(findings.violations)} violations"
        yield from (f"  {v.at:%Y-%m-%d %H:%M}  {v.rule}: {v.words}" for v in findings.violations[:SHOWN])


def _checks(findings: Findings) -> Iterator[str]:
    yield ""
    yield "Violations (must be 0)"
    for rule in Rule:
        yield f"  {findings.count(rule):6}  {rule}"
    yield f"  {findings.count(*AVAILABILITY_RULES):6}  all rules of availability"


def _days(outcome: Outcome, differences: Sequence[Difference]) -> Iterator[str]:
    days = {day for day, _subscription, _line in outcome.snapshots}
    yield ""
    yield f"Snapshots: {len(outcome.snapshots)} of {len(days)} days"
    yield f"  {len(differences):6}  differ from what the machines said (must be 0)"
    yield from (f"          {difference.words}" for difference in differences[:SHOWN])


def _coverage(coverage: list[Coverage]) -> Iterator[str]:
    yield ""
    yield "Patched within 30 days of release (days: median, slowest)"
    for row in coverage:
        release = row.release
        days = f"{median(row.days):5.1f} {row.days[-1]:5.1f}" if row.days else "    -     -"
        off = f"; {row.off_in_time} of {row.off} that were off for most nights" if row.off else ""
        yield (
            f"  {release.released_on}  {release.line}  {release.kind:12}  KB{release.kb_number}  "
            f"{row.in_time:6} of {row.eligible:6}  {days}{off}"
        )


def _reboots(outcome: Outcome, findings: Findings) -> Iterator[str]:
    automatic = [number for number, machine in enumerate(outcome.machines) if machine.is_automatic]
    for title, wanted in (("with hotpatch", True), ("without hotpatch", False)):
        counts = Counter(
            findings.per_machine[number] for number in automatic if outcome.machines[number].is_hotpatch_on is wanted
        )
        yield ""
        yield f"Reboots per machine {title}: " + ", ".join(f"{n} on {counts[n]}" for n in sorted(counts))
    for title, causes in (("on the train", findings.reboots), ("off the train", findings.reboots_off_train)):
        yield ""
        yield f"Why machines {title} rebooted"
        yield from (
            f"  {count:6}  {cause}" for cause, count in sorted(causes.items(), key=lambda row: (-row[1], row[0]))
        )


def _train(findings: Findings) -> Iterator[str]:
    def day(at: datetime | None, otherwise: str) -> str:
        return f"{at:%Y-%m}" if at else otherwise

    rows = Counter(
        (
            f"off since {day(gone.since, 'the start')}" + (f" by KB{gone.kb_number}" if gone.kb_number else ""),
            f"back in {day(gone.back_at, '')} by KB{gone.back_by}" if gone.back_at else "not back at the end",
        )
        for gone in findings.excursions
    )
    yield ""
    yield f"Machines off the train: {sum(rows.values())}"
    yield from (f"  {count:6}  {since}, {back}" for (since, back), count in sorted(rows.items()))
