"""Importing releases and other updates; the admin; the words of every code."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path

import pghistory
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.protocol import AssessmentResult
from patching import terms
from patching.forecast import RebootCause
from patching.one_release import DecisionProblem
from patching.release_files import OTHER_FIELDS, RELEASE_FIELDS, FileProblem, RowProblem
from patching.selection import PlanProblem, RebootProspect, SelectionReason
from patching.terms import Classification, ProductLine, RebootBehavior, ReleaseType, RunStatus
from tests.factories import OperationFactory, UserFactory, VirtualMachineFactory
from updates.models import InstalledPatch, Patch, PatchEvent, Release, ReleaseEvent, VmUpdateState
from updates.selectors.health import find_trouble
from updates.services.assessments import ensure_patches
from updates.services.catalogue import (
    CatalogueFileError,
    DecisionError,
    confirm_release_type,
    decide_release,
    import_catalogue,
)
from updates.texts import (
    CATALOGUE_PROBLEMS,
    DECISION_PROBLEMS,
    PLAN_PROBLEMS,
    PROSPECTS,
    REASONS,
    STEPS,
)
from vms.texts import CAUSES

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
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
def test_a_type_that_is_corrected_by_hand_reaches_the_update(client: Client, staff: User) -> None:
    import_catalogue(data=RELEASES)
    client.force_login(staff)
    release = Release.objects.get(kb_number="5122882")
    url = reverse("admin:updates_release_change", args=[release.pk])
    form = client.get(url).context["adminform"].form
    fields = {name: "" if (value := form[name].value()) in {None, False} else value for name in form.fields}
    client.post(url, fields | {"type": "baseline", "is_type_confirmed": "on", "reason": "Microsoft's own page"})
    release = Release.objects.select_related("patch").get(pk=release.pk)
    assert (release.type, release.is_type_confirmed, release.confirmed_by) == ("baseline", True, "staff")
    assert release.confirmed_at is not None
    assert release.patch is not None
    assert release.patch.release_type == "baseline"
    client.post(url, fields | {"type": "baseline", "is_type_confirmed": "", "reason": "not sure after all"})
    release.refresh_from_db()
    assert (release.is_type_confirmed, release.confirmed_by, release.confirmed_at) == (False, "", None)


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
        (b'[{"type": "lcu", "kb": NaN}]', "no JSON"),
        (b'[{"type": "lcu", "kb": 1' + b"0" * 5000 + b"}]", "no JSON"),
        (b'[{"type": "lcu", "type": "hotpatch"}]', "“type” is named twice"),
        (b"type,type\nlcu,lcu\n", "“type” is named twice"),
        (b'"type', "Line 1 cannot be read"),
        ('[{"type": "lcu"}]'.encode("utf-16"), "not UTF-8"),
        ("type,product\nlcu,サーバー\n".encode("shift_jis"), "not UTF-8"),
        (b"[" + b"{}," * 5_000 + b"{}]", "more than 5000 rows"),
        (b"[{}]", "neither “type” nor “title”. A release needs product, month, type and status; another update needs"),
        (data({"kb": "KB5099999", "month": "2026-06"}), "Row 1, type: the row names neither"),
        (data(ROW | {"status": ["released"]}), "Row 1, status"),
        (data(ROW | {"type": {"a": 1}}), "Row 1, type"),
        (data(ROW | {"month": 202606}), "Row 1, month"),
        (data(ROW | {"month": "2026-13"}), "Row 1, month"),
        (data(ROW | {"month": "9999-12"}), "Row 1, month"),
        (data(ROW | {"month": None}), "Row 1, month: is missing"),
        (data(ROW | {"release_date": "2026-06-31"}), "Row 1, release_date"),
        (data(ROW | {"release_date": "2026-07-14"}), "Row 1, release_date: “2026-07-14” is no day of the row’s month"),
        (data(ROW | {"build": "20348.5074"}), "Row 1, build: “20348.5074” is a build of another product line"),
        (data(ROW | {"build": "newest"}), "Row 1, build"),
        (data(ROW | {"note": "a\ud800"}), "Row 1, note"),
        (data(ROW | {"source": "a\x00"}), "Row 1, source"),
        (data(ROW | {"source": "x" * 3_000}), "Row 1, source: is too long"),
        (data(ROW | {"channel": "post"}), "Row 1, channel"),
        (data(ROW | {"audience": "me"}), "Row 1, audience"),
        (data(ROW | {"corrects": "yes"}), "Row 1, corrects"),
        (data(ROW | {"status": None}), "Row 1, status"),
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


SERVER = "Windows Server 2022 Datacenter: Azure Edition"
AS_MICROSOFT_LISTS_IT = {
    "product": SERVER,
    "month": "2026-04",
    "release_date": "2026-04-14",
    "type": "lcu",
    "kb": "KB5082142",
    "build": "20348.5020",
}


def recorded() -> dict[str, tuple[str, str, str]]:
    """Type, build and the patch's type of every release, by line and KB or month."""
    rows = Release.objects.select_related("patch")
    return {
        f"{r.product_line} {r.kb_number or r.month}": (r.type, r.build, r.patch.release_type if r.patch else "")
        for r in rows
    }


@pytest.mark.django_db
def test_microsofts_list_calls_a_baseline_a_cumulative_update_and_it_stays_a_baseline() -> None:
    import_catalogue(data=RELEASES)
    before = recorded()
    report = import_catalogue(data=data(AS_MICROSOFT_LISTS_IT))
    assert (report.created, report.updated, report.unchanged) == (0, 0, 1)
    assert recorded() == before
    assert import_catalogue(data=RELEASES).unchanged == len(before)


@pytest.mark.django_db
@pytest.mark.parametrize("is_list_first", [True, False])
def test_in_either_order_it_is_the_same_baseline(is_list_first: bool) -> None:
    rows = [
        AS_MICROSOFT_LISTS_IT | {"source": "the list of releases"},
        {"product": SERVER, "month": "2026-04", "type": "baseline", "planned": True, "kb": "KB5082142",
         "status": "released", "evidence": "primary"},
    ]  # fmt: skip
    for row in rows if is_list_first else reversed(rows):
        import_catalogue(data=data(row))
    (release,) = Release.objects.all()
    assert (release.type, release.is_planned, release.is_type_confirmed) == ("baseline", True, True)
    assert (release.build, str(release.released_on), release.is_date_inferred) == ("20348.5020", "2026-04-14", False)
    assert release.source == "the list of releases"
    assert release.patch is not None
    assert (release.patch.release_type, Patch.objects.count()) == ("baseline", 1)


@pytest.mark.django_db
def test_the_list_fills_the_kb_of_a_baseline_that_had_none() -> None:
    import_catalogue(data=RELEASES)
    count = Release.objects.count()
    import_catalogue(data=data({"product": SERVER, "month": "2026-10", "type": "lcu", "kb": "KB5130001"}))
    release = Release.objects.get(kb_number="5130001")
    assert (release.type, release.build, Release.objects.count()) == ("baseline", "20348.5761", count)
    assert import_catalogue(data=RELEASES).unchanged == count, "a row without its KB means the release that has it now"


@pytest.mark.django_db
def test_another_type_is_refused_by_name_and_taken_as_a_correction() -> None:
    import_catalogue(data=RELEASES)
    said = {"product": SERVER, "month": "2026-05", "type": "lcu", "kb": "KB5087424", "status": "released"}
    with pytest.raises(CatalogueFileError, match=r"Row 1, type: KB5087424 is recorded as “Hotpatch”.*corrects"):
        import_catalogue(data=data(said))
    assert Release.objects.get(kb_number="5087424").type == "hotpatch"
    vm = VirtualMachineFactory(hotpatch_status="Enabled", connection__catalogue_date="2026-05-20")
    VmUpdateState.objects.update_or_create(vm=vm, defaults={"os_build": "20348.5074"})
    for kb_number in ("5082142", "5087424"):
        patch = Patch.objects.get(kb_number=kb_number, product_line="ws2022")
        InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=NOW)
    report = import_catalogue(data=data(said | {"corrects": True}), now=NOW, is_dry_run=True)
    assert (report.updated, report.machines) == (1, 1)
    assert report.rows[0].changes[0] == ("type", "Hotpatch", "Cumulative update")
    assert Release.objects.get(kb_number="5087424").type == "hotpatch"
    import_catalogue(data=data(said | {"corrects": True}), now=NOW)
    release = Release.objects.select_related("patch").get(kb_number="5087424")
    assert release.patch is not None
    assert (release.type, release.patch.release_type) == ("lcu", "lcu")


@pytest.mark.django_db
def test_a_month_has_a_baseline_or_a_cumulative_update() -> None:
    import_catalogue(data=RELEASES)
    said = {"product": SERVER, "month": "2026-04", "type": "lcu", "kb": "KB5082999", "status": "released"}
    with pytest.raises(CatalogueFileError, match=r"Row 1, type: .*Baseline.*KB5082142"):
        import_catalogue(data=data(said))
    assert import_catalogue(data=data(said | {"corrects": True})).created == 1


@pytest.mark.django_db
def test_what_is_out_does_not_become_announced_again_and_nothing_erases() -> None:
    import_catalogue(data=data(ROW | {"kb": "KB5099999", "build": "26100.9999", "note": "kept"}))
    report = import_catalogue(data=data(ROW | {"status": "scheduled", "source": None, "evidence": None}))
    assert report.unchanged == 1
    release = Release.objects.get()
    assert (release.status, release.kb_number, release.note, release.evidence) == (
        "released", "5099999", "kept", "primary")  # fmt: skip


@pytest.mark.django_db
def test_an_upgrade_merges_what_an_import_had_doubled() -> None:
    import_catalogue(data=RELEASES)
    before = recorded()
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX updates_release_unique_kb")  # as it was before the upgrade
    kept = Release.objects.select_related("patch").get(kb_number="5082142")
    assert kept.patch is not None
    Release.objects.filter(pk=kept.pk).update(build="")
    Patch.objects.filter(pk=kept.patch.pk).update(release_type="lcu")
    double = Release.objects.create(
        product_line="ws2022", month="2026-04-01", type="lcu", released_on="2026-04-14", kb_number="5082142",
        build="20348.5020", patch=kept.patch, evidence="the list")  # fmt: skip
    Release.objects.filter(pk=double.pk).update(note="seen")
    import_module("updates.migrations.0014_one_release_per_kb").merge(apps, None)
    assert recorded() == before
    kept.refresh_from_db()
    assert (kept.type, kept.note, kept.evidence) == ("baseline", "seen", "primary")
    assert not ReleaseEvent.objects.filter(pgh_obj=double.pk).exists(), (
        "what was kept of the double stays with the release"
    )
    report = import_catalogue(data=RELEASES, keeps_corrections=True)
    assert (report.created, report.updated) == (0, 0)


SEQUENCES = st.lists(
    st.fixed_dictionaries(
        {
            "product": st.sampled_from([SERVER, SERVER.upper(), "windows server 2025"]),
            "month": st.sampled_from(["2026-04", "2026-05"]),
            "type": st.sampled_from(["baseline", "lcu", "LCU", "hotpatch", "oob_lcu", "oob_hotpatch"]),
            "kb": st.sampled_from(["KB5082142", "５０８２１４２", "5082\u200b142", None]),
            "status": st.sampled_from(["released", "scheduled"]),
            "corrects": st.sampled_from([None, True, False]),
            "release_date": st.none(),
            "build": st.none(),
        }
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.django_db(transaction=True)
@given(SEQUENCES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_rows_ever_add_a_second_release_of_a_kb(rows: list[dict[str, object]]) -> None:
    Release.objects.all().delete()
    Patch.objects.all().delete()
    for row in rows:
        try:
            import_catalogue(data=data(row))
        except CatalogueFileError:
            continue
        again = import_catalogue(data=data(row))
        assert (again.created, again.updated) == (0, 0), "twice says what once says"
    kbs = list(Release.objects.exclude(kb_number="").values_list("product_line", "kb_number"))
    assert len(kbs) == len(set(kbs))
    for release in Release.objects.exclude(patch=None).select_related("patch"):
        assert release.patch is not None
        assert release.patch.release_type == release.type


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.sampled_from([*sorted(RELEASE_FIELDS | OTHER_FIELDS), "colour"])


@pytest.mark.django_db(transaction=True)
@given(st.lists(st.dictionaries(FIELDS, ANYTHING, max_size=3), max_size=2), st.binary(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_read_or_refused(rows: list[dict[str, object]], raw: bytes) -> None:
    for content in (
        json.dumps([ROW | row for row in rows]).encode(),
        json.dumps(rows).encode(),
        raw,
        b"type,kb\n" + raw,
    ):
        with suppress(CatalogueFileError):
            import_catalogue(data=content, is_dry_run=True)
    assert not Release.objects.exists()


@pytest.mark.django_db
def test_words_are_read_without_regard_to_case_and_kbs_as_they_were_meant() -> None:
    import_catalogue(
        data=data(
            ROW
            | {
                "product": "windows  SERVER 2025",
                "type": "Hotpatch",
                "status": "Released",
                "kb": " ｋｂ５０９９９９９\ufeff",
            },
            {"product": None, "kb": "890830", "title": "MSRT", "classification": "updaterollup"},
            {"product": "WS2022", "kb": "KB5042349", "title": ".NET", "classification": "security"},
        )
    )
    assert Release.objects.get().kb_number == "5099999"
    assert set(Patch.objects.values_list("key", "classification")) == {
        ("ws2025:5099999", "Security"), (":890830", "UpdateRollUp"), ("ws2022:5042349", "Security")}  # fmt: skip


@pytest.mark.django_db
def test_an_update_that_is_a_release_is_no_other_update() -> None:
    import_catalogue(data=RELEASES)
    for product in (SERVER, None):
        with pytest.raises(CatalogueFileError, match="Row 1, kb: KB5082142 is recorded as a release"):
            import_catalogue(data=data({"product": product, "kb": "KB5082142", "title": "x"}))
    assert Patch.objects.get(kb_number="5082142").release_type == "baseline"


@pytest.mark.django_db
def test_rows_of_both_kinds_and_lists_under_names_come_in_together() -> None:
    other = {"kb": "KB890830", "title": "MSRT", "colour": "blue"}
    report = import_catalogue(data=json.dumps({"corrections": [ROW], "missing": [other]}).encode())
    assert [(row.number, row.outcome.value) for row in report.rows] == [(1, "created"), (2, "created")]
    assert report.unused == ("colour",)


@pytest.mark.django_db
def test_errors_speak_the_readers_language() -> None:
    with pytest.raises(CatalogueFileError) as caught:
        import_catalogue(data=data(ROW | {"kb": "KB1"}))
    error = caught.value
    assert (error.problem, error.row, error.field, error.facts) == ("no_kb", 1, "kb", {"value": "KB1"})
    assert set(CATALOGUE_PROBLEMS) == {*FileProblem, *RowProblem}
    assert set(DECISION_PROBLEMS) == set(DecisionProblem)


@pytest.mark.django_db
def test_the_shipped_file_leaves_what_people_corrected() -> None:
    import_catalogue(data=RELEASES)
    with pghistory.context(source="admin", reason="checked"):
        release = Release.objects.get(kb_number="5087424")
        release.build = "20348.5075"
        release.save()
    decide_release(product_line=ProductLine.WS2022, kb_number="5122882", type=ReleaseType.BASELINE,
                   decided_by="anna", reason="Microsoft's page", now=NOW)  # fmt: skip
    Release.objects.filter(kb_number="5091575").delete()
    report = import_catalogue(data=RELEASES, keeps_corrections=True)
    assert (report.created, report.updated) == (1, 0)
    assert Release.objects.get(kb_number="5087424").build == "20348.5075"
    assert Release.objects.get(kb_number="5122882").type == "baseline"
    with pytest.raises(CatalogueFileError, match="KB5122882"):
        import_catalogue(data=data({"product": SERVER, "month": "2026-09", "type": "oob_lcu", "kb": "KB5122882"}))
    call_command("seed_catalogue", keep_corrections=True, stdout=io.StringIO())
    assert Release.objects.get(kb_number="5122882").type == "baseline"


# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_one_answer_decides_what_an_unknown_update_is() -> None:
    import_catalogue(data=RELEASES)
    unknown = terms.Patch(
        "5130001", "2026-12 Security Update (KB5130001) (26100.34001)", Classification.SECURITY,
        RebootBehavior.ALWAYS_REQUIRES_REBOOT, ProductLine.WS2025, "an-id", published_on=date(2026, 12, 8))  # fmt: skip
    ensure_patches([unknown])
    release = decide_release(product_line=ProductLine.WS2025, kb_number="5130001", type=ReleaseType.BASELINE,
                             decided_by="anna", reason="release notes", now=NOW)  # fmt: skip
    assert (release.month, release.released_on, release.build) == (date(2026, 12, 1), date(2026, 12, 8), "26100.34001")
    assert (release.source, release.is_planned, release.is_type_confirmed) == ("decided by anna", False, True)
    assert (release.confirmed_by, release.confirmed_at) == ("anna", NOW)
    assert Patch.objects.get(kb_number="5130001").release_type == "baseline"
    again = decide_release(product_line=ProductLine.WS2025, kb_number="5130001", type=ReleaseType.OOB_LCU,
                           decided_by="ben", reason="it came out of band", now=NOW)  # fmt: skip
    assert (again.pk, again.type, again.is_planned) == (release.pk, "oob_lcu", None)
    event = ReleaseEvent.objects.get(pgh_obj=release.pk)
    assert (event.type, event.pgh_context.metadata["reason"]) == ("baseline", "it came out of band")


@pytest.mark.django_db
def test_the_baseline_of_a_month_whose_kb_was_not_recorded_is_filled_by_a_decision() -> None:
    import_catalogue(data=RELEASES)
    count = Release.objects.count()
    title = "2026-10 Security Update (KB5126999) (26100.33650)"
    ensure_patches([terms.Patch("5126999", title, Classification.SECURITY, RebootBehavior.UNKNOWN, ProductLine.WS2025)])
    facts = {"product_line": ProductLine.WS2025, "kb_number": "5126999", "decided_by": "anna", "now": NOW}
    with pytest.raises(DecisionError) as caught:
        decide_release(type=ReleaseType.LCU, reason="a guess", **facts)  # type: ignore[arg-type]  # facts of two calls
    assert caught.value.problem is DecisionProblem.OTHER_OF_MONTH
    release = decide_release(type=ReleaseType.BASELINE, reason="build", **facts)  # type: ignore[arg-type]  # same
    assert (release.build, release.is_planned, Release.objects.count()) == ("26100.33650", True, count)
    assert release.released_on == date(2026, 10, 13)


@pytest.mark.django_db
def test_a_decision_that_cannot_be_taken_changes_nothing() -> None:
    ensure_patches([terms.Patch("5126999", "Security Update", Classification.SECURITY, RebootBehavior.UNKNOWN)])
    for kb_number, reason, problem in (
        ("5126999", " ", DecisionProblem.NO_REASON),
        ("5126998", "a", DecisionProblem.NO_UPDATE),
        ("5126999", "a", DecisionProblem.NO_MONTH),
    ):
        with pytest.raises(DecisionError) as caught:
            decide_release(product_line=ProductLine.WS2025, kb_number=kb_number, type=ReleaseType.LCU,
                           decided_by="anna", reason=reason, now=NOW)  # fmt: skip
        assert caught.value.problem is problem
    for release_id, reason, problem in ((1, "", DecisionProblem.NO_REASON), (0, "a", DecisionProblem.IS_GONE)):
        with pytest.raises(DecisionError) as caught:
            confirm_release_type(release_id=release_id, confirmed_by="anna", reason=reason, now=NOW)
        assert caught.value.problem is problem
    assert not Release.objects.exists()


@pytest.mark.django_db
def test_a_type_is_confirmed_once_and_an_import_leaves_it_confirmed() -> None:
    import_catalogue(data=RELEASES)
    release = Release.objects.get(product_line="ws2025", month="2026-10-01")
    assert not release.facts.is_type_confirmed
    confirm_release_type(release_id=release.pk, confirmed_by="anna", reason="read the calendar", now=NOW)
    import_catalogue(data=RELEASES)
    release.refresh_from_db()
    assert release.facts.is_type_confirmed
    assert release.confirmed_by == "anna"


# --- which update it is ------------------------------------------------------------------------------------------


def sighting(version: str, update_id: str, day: int) -> terms.Patch:
    """One sighting of the Malicious Software Removal Tool."""
    return terms.Patch("890830", f"Windows Malicious Software Removal Tool x64 - {version}", Classification.UPDATE_ROLL_UP,
                       RebootBehavior.CAN_REQUEST_REBOOT, None, update_id, version, date(2026, 11, day))  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("versions", [("v5.99", "v5.128"), ("1.387.999.0", "1.387.1002.0")])
def test_the_newer_sighting_replaces_the_whole_row_and_the_older_one_nothing(versions: tuple[str, str]) -> None:
    old, new = sighting(versions[0], "old-id", 1), sighting(versions[1], "new-id", 2)
    for seen in (old, new, old):
        ensure_patches([seen])
    (row,) = Patch.objects.all()
    assert (row.title, row.version, row.update_id, row.published_on) == (
        new.title, new.version, "new-id", date(2026, 11, 2))  # fmt: skip
    assert ensure_patches([new, old]) == {":890830": row.pk}
    assert not PatchEvent.objects.exists(), "a sighting is no correction of the catalogue"


@pytest.mark.django_db
def test_two_updates_of_one_assessment_that_share_a_kb_are_two() -> None:
    import_catalogue(data=RELEASES)
    common = {"classification": Classification.SECURITY, "reboot_behavior": RebootBehavior.ALWAYS_REQUIRES_REBOOT}
    available = (
        terms.Patch("5082063", "2026-04 Security Update (KB5082063) (26100.32690)", product_line=ProductLine.WS2025,
                    update_id="lcu-id", **common),
        terms.Patch("5082063", "Windows 11, version 25H2", product_line=ProductLine.WS2025, update_id="feature-id",
                    **common),
    )  # fmt: skip
    result = AssessmentResult(RunStatus.SUCCEEDED, available, is_reboot_pending=False)
    assert [patch.key for patch in result.available] == ["id:lcu-id", "id:feature-id"]
    pks = ensure_patches(result.available)
    assert len(set(pks.values())) == 2
    assert {row.facts.key for row in Patch.objects.filter(kb_number="5082063")} == {
        "ws2025:5082063", "id:lcu-id", "id:feature-id"}  # fmt: skip
    assert set(Patch.objects.filter(pk__in=pks.values()).values_list("release_type", flat=True)) == {"baseline"}


@pytest.mark.django_db
def test_the_doctor_finds_an_update_that_is_not_what_its_release_says() -> None:
    import_catalogue(data=RELEASES)
    assert "release_type_differs" not in {finding.code for finding in find_trouble()}
    Patch.objects.filter(kb_number="5082142").update(release_type="lcu")
    (finding,) = [finding for finding in find_trouble() if finding.code == "release_type_differs"]
    assert finding.examples == ("ws2022 KB5082142",)
    call_command("seed_catalogue", keep_corrections=True, stdout=io.StringIO())
    assert "release_type_differs" not in {finding.code for finding in find_trouble()}


@pytest.mark.django_db
def test_the_command_says_in_one_sentence_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_releases", str(tmp_path / "nothing"))
    (tmp_path / "bad").write_text("{")
    with pytest.raises(CommandError, match="no JSON"):
        call_command("import_releases", str(tmp_path / "bad"))
    (tmp_path / "good").write_bytes(data(ROW))
    call_command("import_releases", str(tmp_path / "good"))
    said = capsys.readouterr().out
    assert "row 1, Windows Server 2025 2026-06 Hotpatch: created" in said
    assert "1 created, 0 updated, 0 unchanged" in said
    assert "Dry run" not in said
    (tmp_path / "more").write_bytes(data(ROW | {"build": "26100.9999", "colour": "blue"}))
    call_command("import_releases", str(tmp_path / "more"), "--dry-run")
    said = capsys.readouterr().out
    assert "Dry run: nothing was changed." in said
    assert "fields that are not used: colour" in said
    assert Release.objects.get().build == ""


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
    from demo.tour import STOPS

    call_command("seed_demo", verbosity=0)
    client.force_login(staff)
    shown = client.get(reverse("tour")).content.decode()
    assert all(f">{stop.name}</a>" in shown for stop in STOPS)
    client.force_login(outsider)
    assert "There is no demo here" in client.get(reverse("tour")).content.decode()


# --- words -------------------------------------------------------------------------------------------------------


def test_every_reason_has_its_words() -> None:
    assert set(REASONS) == set(SelectionReason)
    assert set(CAUSES) == set(RebootCause)
    assert set(PROSPECTS) == set(RebootProspect)
    assert set(PLAN_PROBLEMS) == set(PlanProblem)
    assert {
        *("assessing", "configuring", "downloading"),
        *("installing", "uninstalling", "rebooting", "verifying"),
    } == set(STEPS)
