"""The qualification kit: what it looks at, what it may begin, what its report proves, and what a report does to a grade."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from audit.models import AuditEvent
from audit.tags import Tag
from connectors.configuration import to_json
from connectors.qualification import Finding, Verdict
from connectors.registry import AZURE, Grade
from connectors.secrets import variable_of
from tests.connectors.azure.arm import Arm, Reply, arm
from tests.connectors.azure.desk import SECRET, configuration
from tests.factories import VirtualMachineFactory
from tests.updates.world import make_due
from updates.models import Operation
from vms.choices import ImportDoor
from vms.models import Connection
from vms.services.import_jobs import sync_inventory, work_on_imports
from vms.services.qualification import checks_of, report_of, write_report

pytestmark = pytest.mark.django_db
HUSH = "hush-hush-hush"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    monkeypatch.setenv(variable_of(SECRET), HUSH)
    found = arm()
    found.reset()
    found.now = timezone.now()
    found.grants = [{"actions": ["*"], "notActions": []}]
    found.machine("web-1")
    found.machine("web-2")
    found.machine("tux")["properties"]["storageProfile"]["osDisk"]["osType"] = "Linux"
    yield found
    found.reset()


@pytest.fixture
def cloud(server: Arm) -> Connection:
    return Connection.objects.create(name="cloud", kind=AZURE, config=to_json(configuration(server)))


@pytest.fixture
def synced(cloud: Connection) -> Connection:
    sync_inventory(connection=cloud, door=ImportDoor.SCHEDULE)
    work_on_imports(seconds=20)
    return cloud


@pytest.fixture
def hurried(server: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the command waits, an hour passes at the other side, and every operation is due."""

    def wait(_seconds: float) -> None:
        server.now += timedelta(hours=1)
        make_due()

    monkeypatch.setattr("updates.management.commands.qualify.time.sleep", wait)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


def qualify(*arguments: object) -> str:
    out = io.StringIO()
    call_command("qualify", *map(str, arguments), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refused(*arguments: object) -> tuple[int, str]:
    with pytest.raises(CommandError) as error:
        qualify(*arguments)
    return error.value.returncode, str(error.value)


def findings_in(file: Path) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(file.read_text())["report"]["findings"]}


def test_every_look_is_told_with_what_was_seen(synced: Connection, server: Arm, file: Path) -> None:
    server.page_size = 2
    told = qualify("cloud", "--report", file)
    found = findings_in(file)
    assert list(found) == [check.name for check in checks_of(AZURE)]
    assert len(found) >= 25
    assert {name for name, one in found.items() if one["verdict"] == "fail"} == set()
    skips = {name: one["reason"] for name, one in found.items() if one["verdict"] == "skipped"}
    assert skips == {
        "patch_status": "Azure has assessed none of them yet",
        "rate_limits": "the answers name none",
        "graph_quota": "the answers name none",
        "assessment": "it was not asked for",
        "installation": "it was not asked for",
    }
    assert found["pages"]["evidence"] == "2, then 1"
    assert found["os_version"]["evidence"] == "20348.5020"
    assert found["settings"]["evidence"] == "AutomaticByPlatform, ImageDefault, hotpatch on"
    assert found["rows"]["evidence"] == "3 machines: 2 rows; left out: 1 linux"
    assert found["known"]["evidence"] == "2 of 2"
    assert found["tls"]["evidence"].startswith("TLSv1.3, certificate of loopback")
    assert re.search(r"^pass     A token is to be had", told, re.MULTILINE)
    assert "no cloud of Microsoft: this report lifts no grade" in told
    assert not server.received, "nothing was begun"
    assert {method for method, _path, _body in server.bodies} == {"GET", "POST"}
    assert {path for method, path, _body in server.bodies if method == "POST"} == {
        "/providers/Microsoft.ResourceGraph/resources"
    }
    assert HUSH not in file.read_text() + told
    assert "token-" not in file.read_text() + told
    event = AuditEvent.objects.get(tag=Tag.QUALIFICATION_RUN)
    assert (event.object_name, event.detail["fail"], event.agent[:7]) == ("cloud", 0, "qualify")


@pytest.mark.parametrize(
    ("planted", "name", "reason"),
    [
        (
            lambda server: setattr(server, "grants", []),
            "permission Microsoft.Compute/virtualMachines/read",
            "lacking in",
        ),
        (lambda server: plant(server, "osVersion", "Windows NT"), "os_version", "not in a form that is read"),
        (lambda server: plant(server, "statuses", [{"code": "PowerState/asleep"}]), "power_state", "not known"),
        (
            lambda server: plant(server, "patchStatus", {"availablePatchSummary": {"status": "Odd"}}),
            "patch_status",
            "without status, id or start",
        ),
        (lambda server: plant(server, None, None), "instance_view", "some have none"),
        (lambda server: answer(server, "ResourceGraph", Reply(403, {})), "graph_assessment", "HTTP 403"),
        (lambda server: answer(server, "no-such-machine", Reply(404, {})), "missing_machine", "not in ARM's envelope"),
        (
            lambda server: answer(server, "/operations/", Reply(403, {"error": {"code": "AuthorizationFailed"}})),
            "operation_address",
            "not told so",
        ),
        (
            lambda server: answer(server, "/WEB-1", Reply(404, {"error": {"code": "ResourceNotFound"}})),
            "ids_without_case",
            "HTTP 404",
        ),
        (
            lambda server: answer(server, "/oauth2/", Reply(401, {"error": HUSH + HUSH})),
            "sign_in",
            "connection.unusable",
        ),
    ],
)
def test_what_is_wrong_is_found(
    planted: Any,
    name: str,
    reason: str,
    synced: Connection,
    server: Arm,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(server)
    if name == "sign_in":
        monkeypatch.setenv(variable_of(SECRET), HUSH + HUSH)  # another secret signs in anew
    code, words = refused("cloud", "--report", file, "--assess", "web-1", "--yes", "web-1")
    assert (code, bool(re.fullmatch(r"\d+ checks? failed\.", words))) == (1, True)
    found = findings_in(file)
    assert found[name]["verdict"] == "fail"
    assert reason in found[name]["reason"]
    assert found["assessment"]["reason"] == "nothing is begun after a check that failed"
    assert not server.received
    assert HUSH not in file.read_text()


def plant(server: Arm, name: str | None, value: object) -> None:
    for machine in ("web-1", "web-2"):
        properties = server.machine(machine)["properties"]
        if name is None:
            del properties["instanceView"]
        else:
            properties["instanceView"][name] = value


def answer(server: Arm, part: str, reply: Reply) -> None:
    server.fault = lambda _method, path: reply if part in path else None


def test_one_assessment_and_one_installation_go_through_the_engine(
    synced: Connection, server: Arm, hurried: None, file: Path
) -> None:
    told = qualify("cloud", "--report", file, "--assess", "WEB-1", "--install", "web-1", "--yes", "web-1")
    found = findings_in(file)
    assert (found["assessment"]["verdict"], found["installation"]["verdict"]) == ("pass", "pass"), told
    assert "1 critical or security, 3 other; build 20348.5020" in found["assessment"]["evidence"]
    assert "598 left" in found["assessment"]["evidence"], "the budget was learnt"
    assert "1 installed, 0 failed" in found["installation"]["evidence"]
    (sent,) = [body for method, path, body in server.bodies if path.endswith("installPatches")]
    assert (sent["rebootSetting"], sent["windowsParameters"]["classificationsToInclude"]) == ("Never", ["Definition"])
    assert set(server.received.values()) == {1}, "each once, and the assessment that looks whether it is installed"
    assert set(Operation.objects.values_list("kind", "state")) >= {
        ("assessment", "succeeded"),
        ("installation", "succeeded"),
    }
    tags = set(AuditEvent.objects.filter(reason="qualification of cloud").values_list("tag", flat=True))
    assert tags == {Tag.ASSESSMENT_REQUEST.value, Tag.INSTALLATION_REQUEST.value}


def test_an_assessment_that_fails_is_told_and_nothing_is_installed(
    synced: Connection, server: Arm, hurried: None, file: Path
) -> None:
    action = "Microsoft.Compute/virtualMachines/assessPatches/action"
    message = f"The client 'x' does not have authorization to perform action '{action}'."
    answer(server, "assessPatches", Reply(403, {"error": {"code": "AuthorizationFailed", "message": message}}))
    refused("cloud", "--report", file, "--assess", "web-1", "--install", "web-2", "--yes", "web-1", "--yes", "web-2")
    found = findings_in(file)
    assert found["assessment"]["reason"] == f"permission.missing {action}"
    assert found["installation"]["verdict"] == "skipped"


def test_a_machine_is_touched_only_if_it_is_named_twice(
    synced: Connection, server: Arm, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, words in (
        (["--assess", "web-1"], "was not confirmed"),
        (["--assess", "web-1", "--yes", "web-2"], "was not confirmed"),
        (["--assess", "web-1", "--install", "web-2", "--yes", "web-1"], "installation on web-2 was not confirmed"),
        (["--assess", "nobody", "--yes", "nobody"], "no machine"),
        (["--install", "tux", "--yes", "tux"], "no machine"),
    ):
        code, told = refused("cloud", "--report", file, *arguments)
        assert (code, words in told, file.exists()) == (2, True, False), told
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: "web-2")
    assert refused("cloud", "--assess", "web-1")[0] == 2
    Connection.objects.update(paused_until=timezone.now() + timedelta(hours=1))
    assert "paused" in refused("cloud", "--assess", "web-1", "--yes", "web-1")[1]
    assert not server.calls or not Operation.objects.exists()


def test_a_typed_name_confirms(
    synced: Connection, server: Arm, hurried: None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: re.findall(r"Type (\S+) to", question)[0])
    qualify("cloud", "--report", file, "--assess", "web-1")
    assert findings_in(file)["assessment"]["verdict"] == "pass"


def test_two_machines_of_one_name_need_their_id(synced: Connection, server: Arm, file: Path) -> None:
    VirtualMachineFactory.create(name="WEB-1", connection=synced)
    assert "name it by its resource id" in refused("cloud", "--assess", "web-1", "--yes", "web-1")[1]


def test_called_wrongly_it_says_how(cloud: Connection, server: Arm, tmp_path: Path) -> None:
    Connection.objects.create(name="lab", kind="simulator")
    assert refused("nobody") == (2, "There is no connection called “nobody”. There are: cloud, lab.")
    assert refused() == (2, "Name a connection, or a report with --import.")
    assert refused("lab") == (2, "There is no qualification kit for connections of the kind simulator.")
    assert refused("cloud", "--import", tmp_path / "x", "--assess", "web-1")[0] == 2
    assert refused("--import", tmp_path / "nothing")[0] == 2
    assert refused("cloud", "--report", tmp_path / "no" / "folder.json")[0] == 2
    Connection.objects.filter(name="cloud").update(config={"endpoint": "http://no"})
    assert refused("cloud")[0] == 1


# --- what a report does ----------------------------------------------------------------------------------------------


@pytest.fixture
def azure() -> Connection:
    """A connection to the real thing."""
    return Connection.objects.create(name="production", kind=AZURE, config={"credential": "managed_identity"})


def report(connection: Connection, file: Path, **verdicts: Verdict) -> Path:
    """A report of a walk in which every check passed, but for these."""
    checks = checks_of(connection.kind)
    findings = [Finding(check.name, verdicts.get(check.name, Verdict.PASSED), "seen") for check in checks]
    file.write_text(
        write_report(report_of(connection=connection, findings=findings, now=timezone.now()), checks=checks)
    )
    return file


def test_a_good_report_lifts_the_grade_once(azure: Connection, file: Path) -> None:
    assert azure.grade is Grade.PROTOCOL_PROVEN
    report(azure, file, installation=Verdict.SKIPPED, patch_status=Verdict.SKIPPED)
    today = timezone.now()
    assert qualify("production", "--import", file) == f"production: Run on real machines ({today:%Y-%m-%d}).\n"
    azure.refresh_from_db()
    assert (azure.grade, azure.qualification["has_installed"]) == (Grade.QUALIFIED, False)
    assert "as was known already" in qualify("--import", file)
    assert AuditEvent.objects.filter(tag=Tag.QUALIFICATION_TAKE_OVER).count() == 1
    assert not AuditEvent.objects.filter(tag=Tag.CONNECTION_CHANGE).exists()
    first = azure.qualified_at
    time.sleep(0.01)
    qualify("--import", report(azure, file))
    azure.refresh_from_db()
    assert azure.qualified_at is not None
    assert first is not None
    assert azure.qualified_at > first
    assert azure.qualification["has_installed"]


def test_a_changed_connection_is_not_qualified(azure: Connection, file: Path) -> None:
    qualify("--import", report(azure, file))
    azure.refresh_from_db()
    azure.config = azure.config | {"endpoint": "https://portal.example"}
    azure.save()
    assert azure.grade is Grade.PROTOCOL_PROVEN
    assert refused("--import", file) == (
        1,
        f"{file}: production was changed since the report was made. Run the kit again.",
    )


def test_a_letter_that_was_changed_is_found(azure: Connection, file: Path) -> None:
    text = report(azure, file, assessment=Verdict.FAILED).read_text()
    for old, new in (
        ('"verdict": "fail"', '"verdict": "pass"'),
        ('"cloud": "AzureCloud"', '"cloud": "AzureUSGovernment"'),
        ('"signature": "', '"signature": "x'),
    ):
        assert old in text
        file.write_text(text.replace(old, new))
        assert "The signature does not fit" in refused("--import", file)[1]
    for nonsense in (
        "",
        "[]",
        "{}",
        '{"report": {}}',
        "\udcff",
        "[" * 100_000,
        json.dumps({"report": 1, "signature": 2}),
    ):
        file.write_bytes(nonsense.encode("utf-8", "surrogateescape"))
        assert refused("--import", file)[0] == 1
    azure.refresh_from_db()
    assert azure.grade is Grade.PROTOCOL_PROVEN


def test_another_key_vouches_for_nothing(azure: Connection, file: Path, settings: Any) -> None:
    report(azure, file)
    settings.SECRET_KEY = "another" * 10
    assert "The signature does not fit" in refused("--import", file)[1]


def test_a_report_counts_for_its_connection_alone(azure: Connection, file: Path) -> None:
    other = Connection.objects.create(name="other", kind=AZURE, config=azure.config)
    report(other, file)
    assert "about another connection: other" in refused("production", "--import", file)[1]
    other.delete()
    assert "about another connection: other" in refused("--import", file)[1]


@pytest.mark.parametrize(
    ("config", "is_real"),
    [
        ({"endpoint": "https://management.azure.com/"}, True),
        (
            {"endpoint": "https://management.usgovcloudapi.net", "authority": "https://login.microsoftonline.us"},
            True,
        ),
        (
            {"endpoint": "https://management.chinacloudapi.cn", "authority": "https://login.chinacloudapi.cn"},
            True,
        ),
        ({"endpoint": "https://management.usgovcloudapi.net"}, False),
        ({"endpoint": "https://management.azure.com.example"}, False),
        ({"endpoint": "https://management.azure.com:8443"}, False),
        ({"endpoint": "https://portal.example"}, False),
        ({"authority": "https://login.example"}, False),
        ({"ca_bundle": "/etc/ours.pem"}, False),
    ],
)
def test_only_clouds_of_microsoft_are_real(
    azure: Connection, file: Path, config: dict[str, str], is_real: bool
) -> None:
    azure.config = azure.config | config
    azure.save()
    report(azure, file)
    if is_real:
        assert "Run on real machines" in qualify("--import", file)
    else:
        assert "stays “real protocol”" in refused("--import", file)[1]
    azure.refresh_from_db()
    assert (azure.grade is Grade.QUALIFIED) is is_real


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.SKIPPED])
def test_every_required_check_has_to_pass(azure: Connection, file: Path, verdict: Verdict) -> None:
    for name in ("sign_in", "rows", "assessment"):
        report(azure, file, **{name: verdict})
        assert refused("--import", file)[1].endswith(f"did not pass: {name}.")
    report(azure, file, pages=verdict, known=verdict)
    qualify("--import", file)


def test_other_checks_prove_something_else(azure: Connection, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(azure, file)
    kept = checks_of(azure.kind)
    monkeypatch.setattr("vms.services.qualification.checks_of", lambda _kind: kept[1:])
    assert "another catalogue of checks" in refused("--import", file)[1]


def test_our_own_server_lifts_nothing(synced: Connection, server: Arm, hurried: None, file: Path) -> None:
    qualify("cloud", "--report", file, "--assess", "web-1", "--yes", "web-1")
    assert "is not a cloud of Microsoft" in refused("--import", file)[1]
    synced.refresh_from_db()
    assert synced.grade is Grade.PROTOCOL_PROVEN
