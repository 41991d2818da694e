"""The pages of the import: the form, a job, its answers; and asking a connection for its machines."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from ui.uploads import form_is_sound, receives_in_pieces
from vms.choices import ImportDoor
from vms.forms.imports import ImportForm
from vms.import_models import ImportJob
from vms.import_pages import ImportPage, answer_lines, earlier_imports, import_limit, job_or_404
from vms.models import Connection
from vms.selectors import owns_everything
from vms.services.import_jobs import cancel_import, file_arrived, sync_inventory, take_over
from vms.tasks import wake_importer
from vms.uploads import Receiver, received


def _for_owners_of_everything(request: PortalRequest) -> None:
    if not owns_everything(request.user):
        raise PermissionDenied


@receives_in_pieces
@require_http_methods(["GET", "POST"])
def vm_import(request: PortalRequest) -> HttpResponse:
    """Start the import of a file, or of what a dry run has kept; the file goes into the database as it arrives."""
    _for_owners_of_everything(request)
    with received(request) as receiver:
        return _import_form(request, receiver)


@form_is_sound
def _import_form(request: PortalRequest, receiver: Receiver) -> HttpResponse:
    is_sent = request.method == "POST"
    data, files = (request.POST, request.FILES) if is_sent else (None, None)
    form = ImportForm(data, files, refused=receiver.error)
    job = _started(request, form) if form.is_bound and form.is_valid() else None
    if job is not None:
        wake_importer(size=job.size)
        return redirect("vms:import-job", job.pk)
    context = {"form": form, "earlier": earlier_imports(), "limit": import_limit()}
    return render_page(request, "vms/import.html", context, status=422 if form.is_bound else 200)


def _started(request: PortalRequest, form: ImportForm) -> ImportJob | None:
    """The job that a valid form asks for. None: its dry run is not kept any more, and the form's errors say so."""
    fields = form.cleaned_data
    what = {"connection": fields["connection"], "is_dry_run": fields["is_dry_run"]}
    if file := form.staged:
        return file_arrived(job_id=file.job_id, file_name=file.name or "", size=file.size or 0, **what)
    job = take_over(job_id=fields["draft"], requested_by=request.user, **what)
    if job is None:
        form.refuse_draft()
    return job


@require_GET
def import_job(request: PortalRequest, pk: UUID) -> HttpResponse:
    """How far an import is, and what became of its rows."""
    _for_owners_of_everything(request)
    context = {"page": ImportPage(job_or_404(pk))}
    return render_page(request, "vms/import_job.html", context, partials={"import-progress"})


@require_GET
def import_answers(request: PortalRequest, pk: UUID) -> StreamingHttpResponse:
    """What became of the rows, as CSV."""
    _for_owners_of_everything(request)
    job = job_or_404(pk)
    headers = {"Content-Disposition": f'attachment; filename="import-{job.pk}.csv"'}
    return StreamingHttpResponse(answer_lines(job), content_type="text/csv; charset=utf-8", headers=headers)


@require_POST
def import_cancel(request: PortalRequest, pk: UUID) -> HttpResponse:
    """End an import of which nothing was taken over yet."""
    _for_owners_of_everything(request)
    if cancel_import(job_id=job_or_404(pk).pk, cancelled_by=request.user):
        messages.success(request, _("The import was cancelled. Nothing was changed."))
    else:
        messages.error(request, _("It cannot be cancelled any more: machines have been imported, or it is over."))
    return redirect("vms:import-job", pk)


@require_POST
def inventory_sync(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask a connection for its machines now, and every day from now on."""
    _for_owners_of_everything(request)
    connection = get_object_or_404(Connection, pk=pk)
    job = sync_inventory(connection=connection, door=ImportDoor.PAGE, requested_by=request.user)
    wake_importer()
    return redirect("vms:import-job", job.pk)
