"""The DICOMweb client: finds by QIDO-RS, fetches by WADO-RS, pushes by STOW-RS.

An answer counts as stored only where it names the instance: a login page answers 200 as well.
Source: DICOM PS3.18 10.4 (Retrieve), 10.5 (Store), 10.6 (Search), annex I (Store Instances Response Module).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from pleura.config.nodes import Node
from pleura.dicom.instance import bytes_of
from pleura.dicom.limits import max_bytes
from pleura.errors import ConfigError, InputError, excerpt
from pleura.serve.pacs.delivery import UnreachableError
from pleura.serve.pacs.outbox import Parcel

_TIMEOUT_S = (10.0, 120.0)
"""To connect, and between two bytes of an answer."""
_OF_THE_SERVICE = {401, 403, 404, 405, 407, 408, 429}
"""Status codes that are about the service or us, and not about an instance."""
_STUDY, _INSTANCE = "0020000D", "00080018"
_REFERENCED, _UID, _FAILED, _REASON = "00081199", "00081155", "00081198", "00081197"


class _TooLargeError(requests.RequestException):
    """An answer that is not read."""


class Service:
    """A DICOMweb service: one session, and the last answer as it came."""

    def __init__(self, name: str, node: Node) -> None:
        """Raises: ConfigError where a file of the node cannot be used."""
        self.name = name
        self._answers = threading.local()
        session = requests.Session()
        session.max_redirects = 0  # a POST that is redirected becomes a GET, and succeeds
        session.verify = node.ca or True
        if node.certificate is not None:
            session.cert = (node.certificate, str(node.key))
        headers = {"Accept": "application/dicom+json"}
        if node.user is not None:
            session.auth = (node.user, _secret(node.password_file))
        elif node.token_file is not None:
            headers["Authorization"] = f"Bearer {_secret(node.token_file)}"
        try:
            self.client = DICOMwebClient(
                str(node.url).rstrip("/"), session, headers=headers, callback=self._note, timeout=_TIMEOUT_S
            )
        except ValueError as error:
            raise ConfigError(f"{name}: is no address of a DICOMweb service ({error})") from error
        self.client.set_http_retry_params(retry=False)  # what fails is tried again later, and others first

    def _note(self, response: Any, *_: Any, **__: Any) -> Any:
        self._answers.last = response
        if int(response.headers.get("Content-Length") or 0) > max_bytes():
            raise _TooLargeError("an answer is larger than any radiograph")
        return response

    def find(self, level: str, **where: Any) -> list[dict[str, Any]]:
        """Return what is found of a level, `studies` or `instances`, as DICOM JSON, each UID once.

        where: as `search_for_studies` of the client takes it. Raises: UnreachableError.
        """
        search = getattr(self.client, f"search_for_{level}")
        uid = {"studies": _STUDY, "instances": _INSTANCE}[level]
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = {value_in(one, uid): one for one in self._asked(search, offset=len(found) or None, **where)}
            new = {key: one for key, one in page.items() if key not in found}
            if not new:  # the end; or a service that begins anew whatever it is asked to skip
                return list(found.values())
            found |= new

    def fetch(self, study: str, series: str, instance: str) -> bytes:
        """Return an instance as a file, in the transfer syntax in which it is stored.

        Raises: UnreachableError; InputError if it is no DICOM file, or larger than a radiograph may be.
        """
        made = self._asked(self.client.retrieve_instance, study, series, instance)
        return bytes_of(made)

    def _asked(self, request: Any, *arguments: Any, **named: Any) -> Any:
        """Raises: UnreachableError, InputError."""
        self.forget_answer()
        try:
            return request(*arguments, **named)
        except requests.TooManyRedirects as error:
            raise UnreachableError(f"{self.name} redirects to another address; name that one") from error
        except _TooLargeError as error:
            raise InputError(f"{self.name}: {error}") from error
        except requests.HTTPError as error:
            code = "an error" if error.response is None else error.response.status_code
            raise UnreachableError(f"{self.name} answers HTTP {code}") from error
        except (requests.RequestException, OSError) as error:
            if self.last_answer is None:
                raise UnreachableError(f"{self.name}: no connection ({type(error).__name__})") from error
            raise UnreachableError(f"{self.name}: its answer broke off, or is none of DICOMweb") from error
        except (ValueError, LookupError, TypeError, AttributeError, InvalidDicomError) as error:
            raise InputError(f"{self.name}: what it answers is no DICOM ({excerpt(error)})") from error

    @property
    def last_answer(self) -> Any:
        """The response that this thread got last; None where there was none."""
        return getattr(self._answers, "last", None)

    def forget_answer(self) -> None:
        """Forget it, before the next request."""
        self._answers.last = None


def value_in(document: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an attribute in DICOM JSON as text; empty where there is none."""
    values = (document.get(tag) or {}).get("Value") or [""]
    return str(values[0])


class StowClient:
    """Pushes results to a service; see `delivery.Destination`."""

    def __init__(self, name: str, node: Node) -> None:
        """Raises: ConfigError."""
        self.name, self._service = name, Service(name, node)

    def send(self, parcels: Sequence[Parcel]) -> Iterator[tuple[Parcel, str | None]]:
        """Push the files of each parcel in one request. Raises: UnreachableError."""
        for parcel in parcels:
            yield parcel, self._push(parcel)

    def _push(self, parcel: Parcel) -> str | None:
        """Push one parcel; returns why it was refused. Raises: UnreachableError."""
        try:
            made = [dcmread(file) for file in parcel.files]
        except (OSError, InvalidDicomError) as error:
            return f"its files cannot be read from the inbox ({type(error).__name__})"
        self._service.forget_answer()
        try:
            self._service.client.store_instances(made)
        except requests.TooManyRedirects as error:
            raise UnreachableError("it redirects to another address; name that one") from error
        except _TooLargeError as error:
            return str(error)
        except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError) as error:
            if self._service.last_answer is None:
                raise UnreachableError(f"no connection ({type(error).__name__})") from error
        return self._refusal(parcel, made)  # read here: what the client cannot read, it takes for anything

    def _refusal(self, parcel: Parcel, made: Sequence[Any]) -> str | None:
        """Why the last answer does not say that everything is stored. Raises: UnreachableError."""
        response = self._service.last_answer
        code = int(response.status_code)
        if code in _OF_THE_SERVICE or code >= 500:
            raise UnreachableError(f"it answers HTTP {code}", during=parcel if code >= 500 else None)
        try:
            stored, failed = _outcome(response.content)
        except (requests.RequestException, RuntimeError) as error:
            raise UnreachableError("its answer broke off", during=parcel) from error
        missing = [file.stem for file, one in zip(parcel.files, made, strict=True) if one.SOPInstanceUID not in stored]
        if not missing:
            return None
        reasons = ", ".join(sorted({f"0x{reason:04X}" for reason in failed.values()})) or "no reason given"
        return f"{', '.join(missing)}: HTTP {code} does not say that it is stored ({reasons})"


def _outcome(content: bytes) -> tuple[set[str], dict[str, int]]:
    """The UIDs that an answer in JSON says are stored, and those that failed with their reason."""
    try:
        document = json.loads(content)
        answer = document[0] if isinstance(document, list) else document
        stored = {item[_UID]["Value"][0] for item in answer.get(_REFERENCED, {}).get("Value", [])}
        failed = {
            item[_UID]["Value"][0]: int(item.get(_REASON, {}).get("Value", [0])[0])
            for item in answer.get(_FAILED, {}).get("Value", [])
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return set(), {}
    return stored, failed


def _secret(path: str | None) -> str:
    """The first line of a file. Raises: ConfigError."""
    try:
        lines = Path(str(path)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from error
    if not lines or not lines[0].strip():
        raise ConfigError(f"{path}: is empty; it holds a password or a token")
    return lines[0].strip()
