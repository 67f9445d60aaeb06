"""The C-STORE SCP: takes radiographs into the inbox, and answers once they are on the disk.

Reports, segmentations, presentation states and documents are accepted and passed over, whoever made them, so that an
archive that routes everything here has no errors, and our own results make no loop. Any other class is refused when the
association is negotiated.
Source: DICOM PS3.4 B (Storage Service Class), PS3.7 9.3.1 (C-STORE).
"""

from __future__ import annotations

import ipaddress
import logging
import sqlite3
import ssl
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt

from pleura.data.classify import NO_RADIOGRAPHS
from pleura.dicom.decode import TRANSFER_SYNTAXES
from pleura.dicom.frontal import RADIOGRAPH_CLASSES
from pleura.dicom.limits import max_bytes
from pleura.errors import InputError, OutputError
from pleura.serve.logs import log, log_error
from pleura.serve.pacs.associations import PDU_BYTES, BoundedServer, Bounds
from pleura.serve.pacs.inbox import PASSED_OVER, Inbox, InboxFullError
from pleura.serve.pacs.spool import INCOMING

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""Status of an answer. Source: DICOM PS3.4 table B.2-1."""
_VERIFICATION = "1.2.840.10008.1.1"
_KINDS = {"SEG": "segmentation", "PR": "presentation state", "SR": "report", "DOC": "document"}
_ACSE_S, _IDLE_S = 30.0, 60.0


@dataclass(frozen=True)
class Access:
    """Who may send."""

    ae_titles: Collection[str] = ()
    """Calling AE titles; any, where there are none."""
    addresses: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
    """Any, where there are none."""
    tls: ssl.SSLContext | None = None
    associations: int = 20
    """At a time."""

    def allows(self, address: str) -> bool:
        """Return whether a connection from an address is accepted."""
        if not self.addresses:
            return True
        one = ipaddress.ip_address(address.partition("%")[0])
        one = getattr(one, "ipv4_mapped", None) or one
        return any(one in network for network in self.addresses)


class Listener:
    """A C-STORE SCP of an inbox."""

    def __init__(self, inbox: Inbox, ae_title: str, access: Access, take_all: bool = False) -> None:
        """take_all: accept storage of every class, and pass over what is no radiograph. Raises: OutputError."""
        _config.LOG_HANDLER_LEVEL = "none"  # its handlers write headers out, and cost time
        self.inbox, self.ae_title, self.access = inbox, ae_title, access
        self._ae = AE(ae_title)
        self._ae.maximum_pdu_size, self._ae.maximum_associations = PDU_BYTES, access.associations
        self._ae.acse_timeout, self._ae.dimse_timeout, self._ae.network_timeout = _ACSE_S, _IDLE_S, _IDLE_S
        self._ae.require_called_aet, self._ae.require_calling_aet = True, [*access.ae_titles]
        self._ae.add_supported_context(_VERIFICATION)
        for uid in {*RADIOGRAPH_CLASSES, *(str(each.abstract_syntax) for each in AllStoragePresentationContexts)}:
            if take_all or uid in RADIOGRAPH_CLASSES or uid.startswith((*NO_RADIOGRAPHS,)):
                self._ae.add_supported_context(uid, [*TRANSFER_SYNTAXES])
        self._server: BoundedServer | None = None

    def start(self, host: str, port: int) -> int:
        """Listen, in threads of its own; returns the port. Raises: OutputError where the address cannot be had."""
        bounds = Bounds(
            folder=self.inbox.folder / INCOMING,
            dataset_bytes=max_bytes(),
            associations=self.access.associations,
            allows=self.access.allows,
            note=self.note,
            tls=self.access.tls,
        )
        handlers: Any = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_CONN_CLOSE, lambda event: event.assoc.dimse.discard()),
        ]
        try:
            server: Any = self._ae.make_server(
                (host, port), self.ae_title, evt_handlers=handlers, server_class=BoundedServer, bounds=bounds
            )
        except OSError as error:
            raise OutputError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another") from error
        self._ae._servers.append(server)  # where its shutdown seeks it
        threading.Thread(target=server.serve_forever, args=(0.2,), name="listener", daemon=True).start()
        self._server = server
        return int(server.server_address[1])

    def stop(self, within_s: float = 15.0) -> None:
        """Accept no more, and let what is arriving finish, for so long."""
        if self._server is None:
            return
        self._server.shutdown()
        ends = time.monotonic() + within_s
        while self._server.active_associations and time.monotonic() < ends:
            time.sleep(0.05)
        for association in self._server.active_associations:
            association.abort()

    @property
    def associations(self) -> int:
        """How many senders are connected."""
        return 0 if self._server is None else len(self._server.active_associations)

    def is_full(self) -> bool:
        """Return whether the next instance would be refused for lack of room. Raises: sqlite3.Error."""
        try:
            self.inbox.check_room()
        except (InboxFullError, OSError):
            return True
        return False

    def note(self, name: str, **fields: Any) -> None:
        """Count an event, and log it where there is more to say."""
        if fields:
            log(name, logging.WARNING, **fields)
        try:
            self.inbox.count(name)
        except sqlite3.Error as error:
            log_error("tables not written", error)

    def _passed_over(self, sop_class_uid: str, sender: str) -> None:
        """Count what is passed over by its class, and log what that is."""
        word = next((word for start, word in NO_RADIOGRAPHS.items() if sop_class_uid.startswith(start)), None)
        kind = "another class" if word is None else _KINDS[word]
        log("passed over", sender=sender, reason=kind)
        try:
            self.inbox.count("passed over by class", f"{PASSED_OVER}{kind}")
        except sqlite3.Error as error:
            log_error("tables not written", error)

    def _accepted(self, event: Any) -> None:
        refused = event.assoc.rejected_contexts
        if refused:
            names = sorted({context.abstract_syntax.name for context in refused})
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            self.note("contexts refused", sender=event.assoc.requestor.ae_title, what=f"{', '.join(names[:2])}{more}")

    def _rejected(self, event: Any) -> None:
        who = event.assoc.requestor
        self.note("associations refused", sender=who.ae_title, address=who.address)

    def _store(self, event: Any) -> Any:
        """Answer a C-STORE request, once its instance is safe."""
        spool, sender = event.request.DataSet, event.assoc.requestor.ae_title
        try:
            if not spool.is_wanted:
                self._passed_over(str(event.request.AffectedSOPClassUID), sender)
                return SUCCESS
            arrival = spool.finish(str(event.request.AffectedSOPInstanceUID), sender)
            taken = self.inbox.take(arrival)
        except InputError as error:
            self.note("not stored", sender=sender, reason=str(error))
            return _answer(CANNOT_UNDERSTAND, str(error))
        except InboxFullError as error:
            self.note("refused for lack of room", sender=sender, reason=str(error))
            return _answer(OUT_OF_RESOURCES, str(error))
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or "the inbox cannot be written"
            self.note("refused for lack of room", sender=sender, reason=reason)
            return _answer(OUT_OF_RESOURCES, reason)
        finally:
            spool.close()
        log("received", name=arrival.name, sender=sender, bytes=arrival.size_bytes, kind=taken.value)
        return SUCCESS


def _answer(status: int, comment: str) -> Any:
    answer = Dataset()
    answer.Status, answer.ErrorComment = status, comment[:64]
    return answer
