"""Refusals as a client of the API gets them: one body for all. Source: RFC 9457 (problem+json)."""

from __future__ import annotations

from typing import Any

MEDIA_TYPE = "application/problem+json"
KINDS: dict[str, tuple[int, str]] = {
    "bad-multipart": (400, "The body is not the multipart that its Content-Type says"),
    "no-file": (400, "The body holds no file"),
    "several-files": (400, "The body holds several files"),
    "bad-parameter": (400, "A parameter is not one of those that are taken"),
    "no-key": (401, "An API key is needed"),
    "other-site": (403, "A page of another site sent this"),
    "not-found": (404, "There is nothing at this address"),
    "no-such-job": (404, "There is no such job"),
    "method-not-allowed": (405, "The address does not take this method"),
    "not-acceptable": (406, "None of the accepted media types can be given"),
    "body-timeout": (408, "The body took too long"),
    "too-large": (413, "The body is too large"),
    "too-many-files": (413, "The body holds too many files"),
    "unsupported-type": (415, "The body is of a type that is not taken"),
    "unreadable": (422, "The radiograph cannot be read"),
    "too-many-pixels": (422, "The radiograph has too many pixels"),
    "no-object": (422, "The radiograph cannot have this DICOM object"),
    "other-host": (421, "The name that the service was asked by is none of its own"),
    "busy": (429, "Too much is waiting already"),
    "too-many-jobs": (429, "Too many jobs are not fetched yet"),
    "client-gone": (499, "The client closed the connection before the answer"),
    "internal": (500, "The service failed; this is a fault in it"),
    "stopping": (503, "The service is stopping"),
    "too-slow": (503, "The prediction took too long"),
}
"""Code -> status and title. Codes stay as they are: clients decide by them."""


class ProblemError(Exception):
    """A request is refused. `detail` is for the client, who has sent what it may quote; logs have the code only."""

    def __init__(self, code: str, detail: str, *, retry_after_s: int | None = None, **headers: str) -> None:
        """headers: of the answer, with _ for -."""
        super().__init__(detail)
        self.code, self.detail, self.retry_after_s = code, detail, retry_after_s
        self.status, self.title = KINDS[code]
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the body of the answer."""
        return {
            "type": f"urn:pleura:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:uuid:{request_id}",
            "code": self.code,
            **({} if self.retry_after_s is None else {"retry_after_s": self.retry_after_s}),
        }


def internal() -> ProblemError:
    """Return the refusal for a fault of the service itself, of which the log has the place."""
    return ProblemError("internal", "nothing is wrong with the request by itself; the log has its id and the place")
