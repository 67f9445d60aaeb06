"""The C-STORE SCU: sends results to a DICOM application entity, many in one association.

Source: DICOM PS3.4 B (Storage Service Class), PS3.7 9.3.1 and C (status of an answer).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from pleura.serve.pacs.delivery import UnreachableError
from pleura.serve.pacs.outbox import Parcel

_CONNECT_S, _ANSWER_S = 10.0, 120.0
_REJECTIONS = {
    (1, 1): "our AE title is not known there, or not allowed",
    (1, 3): "our AE title is not known there",
    (1, 7): "its AE title is another",
    (3, 1): "it is busy",
    (3, 2): "it has too many associations",
}
"""(source, diagnostic) in words. Source: DICOM PS3.8 table 9-21."""
_STATUS = {0xA7: "out of resources", 0xA9: "does not take it as that class", 0xC0: "cannot understand it"}
"""First byte of a status in words. Source: DICOM PS3.4 table B.2-1."""


@dataclass(frozen=True)
class Peer:
    """A DICOM application entity."""

    name: str
    """How it is called in the log."""
    host: str
    port: int
    ae_title: str
    tls: ssl.SSLContext | None = None


class StoreScu:
    """Sends to one application entity."""

    def __init__(self, peer: Peer, own_ae_title: str) -> None:
        self.name, self.peer = peer.name, peer
        self._ae = AE(own_ae_title)
        self._ae.connection_timeout, self._ae.acse_timeout = _CONNECT_S, 30.0
        self._ae.dimse_timeout = self._ae.network_timeout = _ANSWER_S

    def send(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, str | None]]:
        """Send parcels in one association; see `Destination`. Raises: UnreachableError."""
        kinds = {kind for parcel in parcels for file in parcel.files if (kind := _kind_of(file)) is not None}
        if not kinds:
            yield from ((parcel, "its files cannot be read from the inbox") for parcel in parcels)
            return
        # As they are; and for those who take nothing else in Implicit VR, which they are written anew in.
        plain = {(one, ImplicitVRLittleEndian) for one, syntax in kinds if syntax == ExplicitVRLittleEndian}
        association = self._open(sorted(kinds | plain))
        try:
            for parcel in parcels:
                refusals = [why for file in parcel.files if (why := self._store(association, parcel, file))]
                yield parcel, "; ".join(refusals) or None
        finally:
            if association.is_established:
                association.release()

    def _open(self, contexts: Sequence[tuple[str, str]]) -> Any:
        peer = self.peer
        presented = [build_context(*context) for context in contexts]
        tls = None if peer.tls is None else (peer.tls, peer.host)
        opened = list[Any]()
        association = self._ae.associate(
            peer.host,
            peer.port,
            presented,
            peer.ae_title,
            tls_args=tls,
            evt_handlers=[(evt.EVT_CONN_OPEN, opened.append)],
        )
        if association.is_established:
            return association
        if association.is_rejected:
            answer = association.acceptor.primitive
            key = (int(answer.result_source or 0), int(answer.diagnostic or 0)) if answer else (0, 0)
            raise UnreachableError(f"it rejects the association: {_REJECTIONS.get(key, 'no reason given')}")
        raise UnreachableError("it aborts the association" if opened else "no connection, or no TLS")

    def _store(self, association: Any, parcel: Parcel, file: Path) -> str | None:
        """Send one file; returns why it was refused. Raises: UnreachableError if the association ends."""
        if not association.is_established:
            raise UnreachableError("it ended the association", during=parcel)
        try:
            made = dcmread(file)
        except (OSError, InvalidDicomError) as error:
            return f"{file.stem}: cannot be read from the inbox ({type(error).__name__})"
        try:
            status = association.send_c_store(made)
        except ValueError:
            return f"{file.stem}: it does not take objects of that class"
        except (RuntimeError, OSError) as error:
            raise UnreachableError(f"the association broke off ({type(error).__name__})", during=parcel) from error
        return self._refusal(status, parcel, file)

    def _refusal(self, status: Dataset, parcel: Parcel, file: Path) -> str | None:
        code = status.get("Status")
        if code is None:
            raise UnreachableError(f"it did not answer to {file.stem}", during=parcel)
        # Warnings are of what it stored and changed: B000, B006, B007.
        if code == 0 or 0xB000 <= code <= 0xBFFF:
            return None
        return f"{file.stem}: it {_STATUS.get(code >> 8, 'refuses')} (0x{code:04X})"


def _kind_of(file: Path) -> tuple[str, str] | None:
    """SOP Class and transfer syntax; None where they cannot be read."""
    try:
        head = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(head.SOPClassUID), str(head.file_meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError):
        return None
