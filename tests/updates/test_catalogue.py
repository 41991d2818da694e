"""Importing releases and other updates; the admin; the words of every code."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from patching.forecast import RebootCause
from patching.selection import PlanProblem, RebootProspect, SelectionReason
from tests.factories import OperationFactory, UserFactory
from updates.models import Patch, Release, ReleaseEvent
from updates.services.catalogue import CatalogueFileError, import_catalogue
from updates.texts import CAUSES, ERRORS, EVENTS, PLAN_PROBLEMS, PROSPECTS, REASONS, STEPS, error_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "updates" / "data"
RELEASES = (DATA / "hotpatch_releases.json").read_bytes()
ROW = {
    "product": "Windows Server 2025",
    "month": "2026-06",
    "release_date": None,
    "type": "hotpatch",
    "planned": True,
    "kb": None,
    "build": None,
    "status": "released",
    "source": "a release note",
    "evidence": "primary",
}


def data(*rows: object) -> bytes:
    return json.dumps(rows).encode()


@pytest.mark.django_db
def test_the_recorded_data_comes_in_once() -> None:
    first = import_catalogue(data=RELEASES)
    assert first.created == len(json.loads(RELEASES)) == Release.objects.count()
    second = import_catalogue(data=RELEASES)
    assert (second.created, second.updated, second.unchanged) == (0, 0, first.created)
    others = import_catalogue(data=(DATA / "other_updates.json").read_bytes())
    assert others.created == len(json.loads((DATA / "other_updates.json").read_text()))
    again = import_catalogue(data=(DATA / "other_updates.json").read_bytes())
    assert (again.created, again.updated) == (0, 0)
    assert not Release.objects.exclude(kb_number="").filter(patch=None).exists()
    assert not Release.objects.filter(kb_number="").exclude(patch=None).exists()
    assert not Release.objects.filter(source="").exists()


@pytest.mark.django_db
def test_a_kb_that_comes_later_fills_the_row_of_its_month() -> None:
    import_catalogue(data=data(ROW))
    (row,) = Release.objects.all()
    assert (row.kb_number, row.patch, row.is_date_inferred) == ("", None, True)
    report = import_catalogue(data=data(ROW | {"kb": "KB5099999", "release_date": "2026-06-09"}))
    assert (report.created, report.updated) == (0, 1)
    row.refresh_from_db()
    assert (row.kb_number, row.is_date_inferred) == ("5099999", False)
    assert row.patch is not None
    assert row.patch.key == "ws2025:5099999"
    assert import_catalogue(data=data(ROW | {"kb": "KB5099999", "release_date": "2026-06-09"})).unchanged == 1


def as_csv(rows: list[dict[str, object]]) -> bytes:
    """The same rows as a spreadsheet writes them: with a byte order mark, CRLF, and nothing for null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else str(value).lower() if isinstance(value, bool) else value
                      for name, value in row.items()} for row in rows)  # fmt: skip
    return out.getvalue().encode("utf-8-sig")


@pytest.mark.django_db
def test_csv_says_the_same_as_json() -> None:
    import_catalogue(data=RELEASES)
    again = import_catalogue(data=as_csv(json.loads(RELEASES)))
    assert (again.created, again.updated) == (0, 0)
    others = (DATA / "other_updates.json").read_bytes()
    import_catalogue(data=others)
    again = import_catalogue(data=as_csv(json.loads(others)))
    assert (again.created, again.updated) == (0, 0)


@pytest.mark.django_db
def test_a_dry_run_reports_and_changes_nothing() -> None:
    import_catalogue(data=data(ROW))
    corrected = data(ROW | {"build": "26100.9999"}, ROW | {"month": "2026-07", "type": "baseline"})
    report = import_catalogue(data=corrected, is_dry_run=True)
    assert [(row.number, row.outcome.value) for row in report.rows_by_urgency] == [(1, "updated"), (2, "created")]
    assert report.rows[0].changes == (("build", "", "26100.9999"),)
    assert Release.objects.get().build == ""
    assert not ReleaseEvent.objects.exists()
    real = import_catalogue(data=corrected, file_name="correction.csv")
    assert (real.created, real.updated) == (1, 1)
    event = ReleaseEvent.objects.get()
    assert (event.build, event.pgh_context.metadata["file"]) == ("", "correction.csv")


@pytest.mark.django_db
def test_an_administrator_imports_with_a_dry_run_first(client: Client, staff: User) -> None:
    client.force_login(staff)
    url = reverse("admin:updates_release_import")
    assert client.get(url).context["form"]["is_dry_run"].value() is True
    body = as_csv([ROW])
    page = client.post(url, {"file": SimpleUploadedFile("a.csv", body), "is_dry_run": "on"}).content.decode()
    assert "Dry run: nothing was changed" in page
    assert not Release.objects.exists()
    page = client.post(url, {"file": SimpleUploadedFile("a.csv", body)}).content.decode()
    assert "1 created, 0 corrected, 0 unchanged" in page
    assert Release.objects.exists()
    refused = client.post(url, {"file": SimpleUploadedFile("a.csv", b"type,kb\nhotpatch,1,2\n")})
    assert refused.status_code == 422
    assert "Row 1: it has not as many cells" in refused.content.decode()
    UserFactory(username="helper", is_staff=True)
    client.force_login(User.objects.get(username="helper"))
    assert client.get(url).status_code == 403


@pytest.mark.django_db
def test_a_correction_needs_its_reason_and_keeps_what_was_said_before(client: Client, staff: User) -> None:
    import_catalogue(data=RELEASES)
    client.force_login(staff)
    release = Release.objects.get(kb_number="5070881")
    url = reverse("admin:updates_release_change", args=[release.pk])
    form = client.get(url).context["adminform"].form
    fields = {name: "" if (value := form[name].value()) is None else value for name in form.fields}
    refused = client.post(url, fields | {"build": "26100.1"})
    assert "Say why the row is corrected" in refused.content.decode()
    assert Release.objects.get(pk=release.pk).build == release.build
    client.post(url, fields | {"build": "26100.1", "reason": "typo, see the release notes"})
    assert Release.objects.get(pk=release.pk).build == "26100.1"
    page = client.get(url).content.decode()
    assert f"build: {release.build} → 26100.1" in page
    assert "typo, see the release notes" in page
    assert "staff" in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"", "neither JSON nor CSV"),
        (b"a,b\n1,2\n", "neither JSON nor CSV"),
        (b'type,kb\n"hotpatch,1\n', "unexpected end"),
        (as_csv([ROW | {"planned": "perhaps"}]), "Row 1, planned"),
        (as_csv([ROW, ROW | {"type": "sequel"}]), "Row 2, type"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a": 1}', "a list of objects"),
        (b"[1]", "a list of objects"),
        (data(ROW, ROW | {"type": "sequel"}), "Row 2, type"),
        (data(ROW | {"kb": "KB1; DROP TABLE"}), "Row 1, kb"),
        (data({"title": "x", "kb": ""}), "Row 1, kb"),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(broken: bytes, words: str) -> None:
    with pytest.raises(CatalogueFileError, match=words):
        import_catalogue(data=broken)
    assert not Release.objects.exists()
    assert not Patch.objects.exists()


@pytest.mark.django_db
def test_the_command_says_in_one_sentence_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_releases", str(tmp_path / "nothing"))
    (tmp_path / "bad").write_text("{")
    with pytest.raises(CommandError, match="no JSON"):
        call_command("import_releases", str(tmp_path / "bad"))
    (tmp_path / "good").write_bytes(data(ROW))
    call_command("import_releases", str(tmp_path / "good"))
    assert "1 created, 0 updated, 0 unchanged" in capsys.readouterr().out


@pytest.mark.django_db
def test_every_list_of_the_admin_opens(client: Client, staff: User) -> None:
    call_command("seed_demo", verbosity=0)
    client.force_login(staff)
    for model in (
        "updates_release",
        "updates_patch",
        "vms_imagecatalogentry",
        "vms_connection",
        "vms_virtualmachine",
        "vms_resourcegroup",
        "vms_subscription",
        "vms_roleassignment",
        "vms_factsevent",
        "vms_settingsevent",
        "vms_roleevent",
        "updates_operation",
    ):
        assert client.get(reverse(f"admin:{model}_changelist")).status_code == 200, model
        assert client.get(reverse(f"admin:{model}_changelist"), {"q": "web"}).status_code == 200, model
    (release,) = Release.objects.filter(kb_number="5070881")
    assert b"5070881" in client.get(reverse("admin:updates_release_change", args=[release.pk])).content


@pytest.mark.django_db
def test_operations_are_there_to_look_at_and_nothing_else(client: Client, staff: User) -> None:
    operation = OperationFactory(succeeded=True)
    client.force_login(staff)
    url = reverse("admin:updates_operation_change", args=[operation.pk])
    assert client.get(url).status_code == 200
    assert client.post(url, {"state": "failed"}).status_code == 403
    assert client.get(reverse("admin:updates_operation_add")).status_code == 403
    assert client.post(reverse("admin:updates_operation_delete", args=[operation.pk])).status_code == 403
    found = client.get(reverse("admin:updates_operation_changelist"), {"q": str(operation.pk)}).content.decode()
    assert operation.vm.name in found


@pytest.mark.django_db
def test_the_demo_is_seeded_once() -> None:
    call_command("seed_demo", verbosity=0)
    Release.objects.filter(kb_number="5070881").update(build="26100.6906")
    counts = (Release.objects.count(), Patch.objects.count(), User.objects.count())
    call_command("seed_demo", verbosity=0)
    assert counts == (Release.objects.count(), Patch.objects.count(), User.objects.count())
    assert not User.objects.get(username="admin").has_usable_password()
    assert Release.objects.get(kb_number="5070881").build == "26100.6906", "what an administrator corrected stays"


@pytest.mark.django_db
def test_the_tour_stops_where_the_reader_may_go(client: Client, staff: User, outsider: User) -> None:
    from hotpatch_portal.tour import STOPS

    call_command("seed_demo", verbosity=0)
    client.force_login(staff)
    shown = client.get(reverse("tour")).content.decode()
    assert all(f">{stop.name}</a>" in shown for stop in STOPS)
    client.force_login(outsider)
    assert "There is no demo here" in client.get(reverse("tour")).content.decode()


# --- words -------------------------------------------------------------------------------------------------------


def codes_in(*folders: str) -> set[str]:
    """Every message id that the code can give: texts like "window.exceeded"."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"^[a-z]+\.[a-z_]+$", node.value))
    return found


def test_every_code_has_its_words() -> None:
    known = set(ERRORS) | set(EVENTS)
    given = codes_in("patching", "connectors", "updates/services")
    families = {code.split(".")[0] for code in known}
    assert {code for code in given if code.split(".")[0] in families} <= known
    assert set(REASONS) == set(SelectionReason)
    assert set(CAUSES) == set(RebootCause)
    assert set(PROSPECTS) == set(RebootProspect)
    assert set(PLAN_PROBLEMS) == set(PlanProblem)
    assert {"assessing", "downloading", "installing", "uninstalling", "rebooting", "verifying"} == set(STEPS)


def test_an_unknown_code_still_says_something() -> None:
    assert error_text("martian.invasion").title
