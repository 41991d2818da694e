"""Receiving an inventory file: from the request into the database, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile

from ui.http import PortalRequest
from ui.uploads import is_received_in_pieces
from vms.choices import ImportDoor
from vms.services.import_jobs import PIECE_BYTES, add_piece, begin_import, forget_upload
from vms.services.inventory_files import InventoryFileError


class StagedFile(UploadedFile):  # type: ignore[type-arg]  # generic in the stubs alone
    """A file whose content is with the job `job_id` already."""

    def __init__(self, *, job_id: UUID, name: str, size: int) -> None:
        super().__init__(file=None, name=name, size=size)
        self.job_id = job_id


class Receiver(FileUploadHandler):
    """Puts the first file of a form into a job of its own. `error`: why it was not taken."""

    chunk_size = PIECE_BYTES

    def __init__(self, request: PortalRequest) -> None:
        super().__init__(request)
        self._user = request.user
        self.job_id: UUID | None = None
        self.error: InventoryFileError | None = None
        self._number = 0
        self._waiting = bytearray()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begin a job; every other file of the form is left out."""
        super().new_file(*args, **kwargs)
        if self.job_id is not None:
            raise SkipFile
        self.job_id = begin_import(door=ImportDoor.PAGE, requested_by=self._user).pk

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:  # noqa: ARG002 (Django's signature)
        """Keep what fills a piece. The rest of a file that is too large is passed over."""
        self._waiting += raw_data
        while len(self._waiting) >= PIECE_BYTES:
            self._keep(bytes(self._waiting[:PIECE_BYTES]))
            del self._waiting[:PIECE_BYTES]

    def _keep(self, data: bytes) -> None:
        assert self.job_id is not None
        try:
            add_piece(job_id=self.job_id, number=self._number, data=data)
        except InventoryFileError as error:
            self.error = error
            self._waiting.clear()
            raise SkipFile from None
        self._number += 1

    def file_complete(self, file_size: int) -> StagedFile | None:
        """The last piece; the file as the form gets it."""
        assert self.job_id is not None
        if self._waiting:
            try:
                self._keep(bytes(self._waiting))
            except SkipFile:
                return None
        return StagedFile(job_id=self.job_id, name=self.file_name or "", size=file_size)


@contextmanager
def received(request: PortalRequest) -> Iterator[Receiver]:
    """Receive the file of this form. Pieces whose job was not started are deleted at the end."""
    receiver = Receiver(request)
    if is_received_in_pieces(request):
        request.upload_handlers = [receiver]
    try:
        yield receiver
    finally:
        if receiver.job_id is not None:
            forget_upload(job_id=receiver.job_id)
