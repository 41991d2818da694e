"""`python -m bench.rollout`: planning a rollout and ticks of the scheduler over a fleet of 100,000."""

from __future__ import annotations

import argparse
import os
import resource
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.machine import OUT, manage, save, servers, table, timing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=100_000)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with servers() as environment:
        os.environ.update(environment)
        manage(environment, "migrate", "-v", "0")
        print(manage(environment, "seed_fleet", "--vms", str(options.vms)).splitlines()[-1])
        import django

        django.setup()
        from django.db import connection

        from patching.rollout import plan_lanes
        from updates.models import MaintenanceConfiguration, Operation, Rollout, VmUpdateState
        from updates.selectors.automation import vms_to_patch_automatically
        from updates.services.automation import (
            follow_schedules,
            request_due_assessments,
            start_automatic_patching,
            tick,
        )
        from updates.services.rollouts import _machines, advance_rollouts
        from updates.services.words import refresh_words
        from vms.models import Connection
        from vms.regions import region_pairs

        rows: list[list[Any]] = []
        timed = timing(rows)

        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        night = datetime.now(UTC).replace(hour=14, minute=30)
        first = Connection.objects.order_by("pk").values_list("pk", flat=True)[0]
        timed("record who patches: nothing changed", follow_schedules)
        now = datetime.now(UTC)
        timed("words: the first pass over the fleet", lambda: refresh_words(now=now, seconds=600))
        for minutes in (3, 6, 9):
            timed(
                f"words: {'once more' if minutes == 3 else 'nothing due'}",
                lambda after=minutes: refresh_words(now=now + timedelta(minutes=after), seconds=600),
            )
        timed("words: every assessment grows old", lambda: refresh_words(now=now + timedelta(days=8), seconds=600))
        timed("words: the clock goes back", lambda: refresh_words(now=now, seconds=600))
        MaintenanceConfiguration.objects.bulk_create(
            MaintenanceConfiguration(
                name=f"Ring {number}",
                scope={"tag_name": "ring", "tag_value": str(number)},
                starts_on=night.date(),
                starts_at=night.time(),
                time_zone="UTC",
                recur_every="Day",
                duration_minutes=120,
                plan={},
            )
            for number in range(20)
        )
        timed("record who patches: 20 dynamic scopes, nothing changed", follow_schedules)
        MaintenanceConfiguration.objects.filter(name="Ring 0").update(scope={"tag_name": "role", "tag_value": "web"})
        moved = timed("record who patches: a scope that means a tenth", follow_schedules)
        MaintenanceConfiguration.objects.all().delete()
        timed("record who patches: and back", follow_schedules)
        ids = timed("who is to be patched", lambda: vms_to_patch_automatically(first, night))
        machines = timed("where they stand", lambda: _machines(ids))
        lanes = timed("plan the waves (pure)", lambda: plan_lanes(machines, pairs=region_pairs()))
        waves = sum(len(lane.waves) for lane in lanes)
        timed("a tick with nothing due", lambda: tick(now=night + timedelta(minutes=1)))
        VmUpdateState.objects.update(last_assessed_at=night - timedelta(hours=30))
        timed("a tick: due assessments", lambda: request_due_assessments(now=night))
        made = timed(
            "start automatic patching: choose, freeze, plan, write", lambda: start_automatic_patching(now=night)
        )
        timed("a step of the rollout: start a wave", lambda: advance_rollouts(now=night))
        Operation.objects.filter(kind="installation").update(state="succeeded", finished_at=night, next_step_at=None)
        Rollout.objects.update(next_step_at=night)
        timed("a step of the rollout: end a wave", lambda: advance_rollouts(now=night))
        table(
            f"{options.vms:,} VMs: {len(ids):,} to be patched in {waves:,} waves (the rollout has {made[0].wave_count:,})",
            ["what", "s", "statements"],
            rows,
        )
        print(f"\n{moved:,} VMs changed hands by the scope")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\nlargest memory: {memory:.0f} MB")
        save("rollout", {"vms": options.vms, "rows": rows, "memory_mb": memory})


if __name__ == "__main__":
    main()
