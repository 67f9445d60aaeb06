"""Associations whose datasets go to the disk, within bounds of size and time: what pynetdicom's server leaves open.

A dataset goes to the disk while it arrives, whatever its size; a TLS handshake keeps nobody else waiting; a sender that
stops in the middle is dropped; no PDU and no command is larger than it may be.
Source: DICOM PS3.7 6.3 (messages), PS3.8 9.3 (PDUs).
"""

from __future__ import annotations

import functools
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from pleura.dicom.frontal import RADIOGRAPH_CLASSES
from pleura.dicom.parse import valid_uid
from pleura.errors import InputError
from pleura.serve.logs import log_error
from pleura.serve.pacs.spool import Beginning, Spool

PDU_BYTES = 2**20
"""The largest PDU that is asked for: with 16 kB, pynetdicom's own, it takes longer, and without a bound more memory."""
_READ_AT_MOST = 16 * PDU_BYTES
"""The largest that is read: some senders keep to no length."""
_COMMAND_BYTES = 2**16
_PDU_S, _HANDSHAKE_S = 60.0, 10.0


@dataclass(frozen=True)
class Bounds:
    """What a server takes, and from whom."""

    folder: Path
    """Where datasets go while they arrive."""
    dataset_bytes: int
    associations: int
    """At a time."""
    allows: Callable[[str], bool]
    """Whether an address may connect."""
    note: Callable[..., None]
    """Counts and logs an event: its name, and fields of the log."""
    tls: ssl.SSLContext | None = None


class SpoolingProvider(DIMSEServiceProvider):
    """Puts a spool where a message's dataset is collected."""

    def __init__(self, association: Any, bounds: Bounds) -> None:
        super().__init__(association)
        self._bounds = bounds

    def receive_primitive(self, primitive: Any) -> None:
        """Take the next part of a message."""
        if self.message is None:
            message = self.message = DIMSEMessage()
            message.data_set = Spool(
                self._bounds.folder, functools.partial(self._begin, message), self._bounds.dataset_bytes
            )
        if self.message.encoded_command_set.tell() > _COMMAND_BYTES:
            self.dul.event_queue.put("Evt19")  # an invalid PDU: the association is aborted
            return
        super().receive_primitive(primitive)

    def discard(self) -> None:
        """Forget the message that has not come whole; called by the thread that receives, when the connection ends."""
        if self.message is not None and self.message.data_set is not None:
            self.message.data_set.close()

    def _begin(self, message: Any) -> Beginning | None:
        """What stands before a dataset in its file; None where it is of no radiograph, or no C-STORE's."""
        sop_class = str(message.command_set.get("AffectedSOPClassUID", ""))
        context = {one.context_id: one for one in self.assoc.accepted_contexts}.get(message.context_id)
        if context is None or not isinstance(message, C_STORE_RQ) or sop_class not in RADIOGRAPH_CLASSES:
            return None
        instance = str(message.command_set.get("AffectedSOPInstanceUID", ""))
        syntax = context.transfer_syntax[0]
        if valid_uid(instance) is None:
            raise InputError("its SOP Instance UID is no UID")
        meta = encode_file_meta(
            create_file_meta(sop_class_uid=UID(sop_class), sop_instance_uid=UID(instance), transfer_syntax=syntax)
        )
        return Beginning(b"\0" * 128 + b"DICM" + meta, str(syntax))


class _Handler(RequestHandler):
    """Starts an association whose messages go to the disk."""

    def _create_association(self) -> Any:
        association = super()._create_association()
        server: Any = self.server
        connection: Any = association.dul.socket
        association.dimse = SpoolingProvider(association, server.bounds)
        connection.recv = functools.partial(_receive, self.request)
        connection._shutdown_socket = functools.partial(_close, self.request)
        return association


def _receive(connection: socket.socket, count: int) -> bytearray:
    """Read `count` bytes, or what comes before the connection ends. Raises: OSError for too many, or after too long."""
    if count > _READ_AT_MOST:
        raise OSError(f"a PDU of {count} bytes")
    content, got, ends = bytearray(count), 0, time.monotonic() + _PDU_S
    view = memoryview(content)
    try:
        while got < count:
            connection.settimeout(max(0.001, ends - time.monotonic()))
            read = connection.recv_into(view[got:])
            if not read:
                break
            got += read
    finally:
        view.release()
    return content[:got] if got < count else content


def _close(connection: socket.socket) -> None:
    """Close a connection, also one that the other side has closed: pynetdicom leaves that open."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class BoundedServer(ThreadedAssociationServer):
    """Drops who may not send before anything is read, and shakes hands in the connection's own thread."""

    daemon_threads = True

    def __init__(self, *args: Any, bounds: Bounds, **kwargs: Any) -> None:
        self.bounds = bounds
        super().__init__(*args, **{**kwargs, "request_handler": _Handler})

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether a connection is accepted."""
        address = str(client_address[0])
        if not self.bounds.allows(address):
            self.bounds.note("connections refused", address=address)
            return False
        # Three threads each, and those of the process itself.
        if threading.active_count() > 3 * self.bounds.associations + 50:
            self.bounds.note("connections refused", address=address, reason="too many at a time")
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Begin an association."""
        tls = self.bounds.tls
        if tls is not None:
            try:
                request.settimeout(_HANDSHAKE_S)
                request = tls.wrap_socket(request, server_side=True)
            except OSError as error:
                reason = getattr(error, "reason", None) or type(error).__name__
                self.bounds.note("connections refused", address=client_address[0], reason=f"no TLS: {reason}")
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection failed."""
        log_error("connection failed", sys.exc_info()[1] or OSError(), address=client_address[0])
