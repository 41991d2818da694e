"""The qualification kit against our own door, over TLS on loopback: the door answers as the kit wants, and lifts no grade."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from arm_api.tokens import tenant_id
from connectors.azure.qualification import KIT
from connectors.registry import AZURE, Grade
from tests.arm_api.programs import make_program
from tests.arm_api.served import Served
from vms.models import Connection, VirtualMachine

pytest.importorskip("azure.mgmt.compute")
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stack]
SECRET = "PORTAL_SECRET_DOOR"


@pytest.fixture
def served(tmp_path: Path, recorded_catalogue: None) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


def test_the_door_passes_every_look_and_lifts_no_grade(
    served: Served, make_vm: Callable[..., VirtualMachine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make_vm(f"web-00{number}", os_type="Windows")
    program = make_program()
    monkeypatch.setenv(SECRET, program.secret)
    config = {
        "credential": "client_secret",
        "tenant_id": str(tenant_id()),
        "client_id": str(program.app_id),
        "secret": "door",
        "endpoint": served.origin,
        "authority": served.origin,
        "ca_bundle": str(served.certificate),
    }
    row = Connection.objects.create(name="door", kind=AZURE, config=config)
    file = tmp_path / "report.json"
    out = io.StringIO()
    call_command("qualify", "door", "--report", str(file), stdout=out)
    found = {one["name"]: one for one in json.loads(file.read_text())["report"]["findings"]}
    looks = {check.name: found[check.name]["verdict"] for check in KIT.checks}
    assert {name for name, verdict in looks.items() if verdict == "skipped"} <= NOTHING_TO_SEE, out.getvalue()
    assert found["rate_limits"]["verdict"] == "pass"
    assert found["rows"]["evidence"] == "3 machines: 3 rows"
    assert found["known"]["verdict"] == "skipped", "they are behind the simulator here"
    assert program.secret not in file.read_text() + out.getvalue()
    with pytest.raises(CommandError, match="is not a cloud of Microsoft"):
        call_command("qualify", "--import", str(file))
    assert Connection.objects.get(pk=row.pk).grade is Grade.PROTOCOL_PROVEN


NOTHING_TO_SEE = {"pages", "next_link_host", "patch_status", "os_version", "graph_quota"}
