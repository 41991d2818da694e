"""`manage.py seed_fleet --vms N`: a plausible fleet of any size, for load tests."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from audit.commands import SignedCommand
from bench.fleet import make_fleet

MOST = 5_000_000


class Command(SignedCommand):
    """Make a fleet on connections of its own."""

    help = "Make a plausible fleet of simulated machines. The same seed gives the same machines."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many, from which seed, how fast their clock goes."""
        parser.add_argument("--vms", type=int, required=True, help=f"how many machines, up to {MOST}")
        parser.add_argument("--seed", type=int, default=1, help="0 to 65535 (default 1)")
        parser.add_argument(
            "--clock-factor", type=float, default=60.0, help="simulated seconds per second (default 60)"
        )
        parser.add_argument("--unassessed", action="store_true", help="leave them as they are before any assessment")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Make it."""
        if not 1 <= options["vms"] <= MOST:
            raise CommandError(f"--vms must be from 1 to {MOST}.")
        if not 0 <= options["seed"] <= 65_535:
            raise CommandError("--seed must be from 0 to 65535.")
        call_command("seed_catalogue", if_empty=True, stdout=self.stdout)
        try:
            report = make_fleet(
                count=options["vms"],
                seed=options["seed"],
                clock_factor=options["clock_factor"],
                is_assessed=not options["unassessed"],
                tell=self.stdout.write,
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{report.vms} machines in {report.resource_groups} resource groups, made in {report.seconds:.1f} s"
        )
