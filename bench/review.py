"""`python -m bench.review`: the review of an installation on every machine of a fleet of 100,000, and its confirmation."""

from __future__ import annotations

import argparse
import os
import resource
import uuid
from typing import Any

from bench.machine import OUT, manage, save, servers, table, timing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with servers() as environment:
        os.environ.update(environment)
        manage(environment, "migrate", "-v", "0")
        manage(environment, "collectstatic", "--noinput", "-v", "0")
        print(manage(environment, "seed_fleet", "--vms", str(options.vms)).splitlines()[-1])
        import django

        django.setup()
        from django.contrib.auth.models import User
        from django.db import connection
        from django.test import Client
        from django.utils import timezone

        from patching.terms import Classification, InstallationPlan, OperationKind
        from updates.selectors.review import load_review
        from updates.services.bulk import Share, hand_out_block, request_bulk
        from vms.models import VirtualMachine
        from vms.selection import VmSelection

        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        VirtualMachine.objects.update(power_state="running")
        chief = User.objects.create_superuser("chief of the review")
        plan = InstallationPlan(classifications=frozenset({Classification.CRITICAL, Classification.SECURITY}))
        rows: list[list[Any]] = []
        timed = timing(rows)

        selection = timed(
            "settle the selection: all that match", lambda: VmSelection.matching(VirtualMachine.objects.all())
        )
        for _ in range(options.rounds):
            review = timed("work out the review", lambda: load_review(selection, plan, now=timezone.now()))
        browser = Client()
        browser.force_login(chief)
        asked = {"kind": "installation", "all": "1", "go": "review", "request_id": str(uuid.uuid4())}
        typed = {"classifications": ["Critical", "Security"], "reboot_setting": "IfRequired", "maximum_minutes": "120"}
        for _ in range(options.rounds):
            page = timed("the page of the review", lambda: browser.post("/bulk/", asked | typed, HTTP_HOST="127.0.0.1"))
            assert page.status_code == 200, page.status_code
        shares = [Share(group.packed, group.promise) for group in review.groups]
        timed(
            "keep the request",
            lambda: request_bulk(
                request_id=uuid.uuid4(),
                kind=OperationKind.INSTALLATION,
                selection=selection,
                plan=plan,
                requested_by=chief,
                shares=shares,
            ),
        )
        for _ in range(options.rounds):
            timed("hand out a block", lambda: hand_out_block(connection_kinds=["none"]))
        table(
            f"{options.vms:,} VMs: {len(review.groups)} rows, {review.started:,} machines take the plan",
            ["what", "s", "statements"],
            rows,
        )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\nlargest memory: {memory:.0f} MB")
        save("review", {"vms": options.vms, "rows": rows, "memory_mb": memory})


if __name__ == "__main__":
    main()
