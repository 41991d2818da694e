"""`manage.py get_hotfix VM [--json]`: installed updates as PowerShell's Get-HotFix lists them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.selectors.installed import installed_on
from vms.models import VirtualMachine


class Command(BaseCommand):
    """List the installed updates of one VM, named by its name or its resource id."""

    help = "List what is installed on a VM, as Get-HotFix does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """VM and the form of the answer."""
        parser.add_argument("vm", metavar="VM", help="the VM's name or resource id")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def handle(self, *_args: Any, vm: str, **options: Any) -> None:
        """Print the list, or end with one sentence that says why not."""
        found = _find(vm)
        rows = installed_on(found)
        if not found.connection.lists_installed_updates:
            self.stderr.write("This connection does not tell what is installed: listed is only what runs reported.")
        if options["json"]:
            self.stdout.write(json.dumps([row.as_json() for row in rows], indent=2))
            return
        table = [("Source", "Description", "HotFixID", "InstalledBy", "InstalledOn")]
        table += [row.as_columns() for row in rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _find(name: str) -> VirtualMachine:
    found = (
        VirtualMachine.objects.filter(arm_id=name.lower())[:1] or VirtualMachine.objects.filter(name__iexact=name)[:6]
    )
    if not found:
        raise CommandError(f"There is no virtual machine called “{name}”.")
    if len(found) > 1:
        ids = "\n  ".join(vm.arm_id for vm in found)
        raise CommandError(f"Several virtual machines are called “{name}”. Give a resource id:\n  {ids}")
    return found[0]
