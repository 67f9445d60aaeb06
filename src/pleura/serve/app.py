"""The API: its addresses, and what each takes and gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from pleura import __version__
from pleura.files import as_json
from pleura.inference.overlay import DISCLAIMER
from pleura.serve import openapi
from pleura.serve.answers import DICOM, JSON, OBJECTS, PNG, VIEW, model_document, model_headers, negotiate, render
from pleura.serve.guard import Guard, headers_of, refuse
from pleura.serve.jobs import Jobs
from pleura.serve.metrics import CONTENT_TYPE
from pleura.serve.pages import HEADERS, PAGES, Page
from pleura.serve.problems import ProblemError, internal
from pleura.serve.service import Service
from pleura.serve.uploads import Upload, files_of, media_type_of, read_body
from pleura.serve.viewing import Piece

T = TypeVar("T")
PIECE_BYTES = 2**18
"""Of a body, sent at a time."""
Object = Annotated[
    str | None, Query(alias="object", description=openapi.OBJECT, json_schema_extra={"pattern": openapi.OBJECT_PATTERN})
]


class Api:
    """The application around a service, and what a server needs to know of it."""

    def __init__(self, service: Service) -> None:
        self.service, self.jobs = service, Jobs(service)
        inner = _fastapi(self)
        self.guard = Guard(inner, service)

    @property
    def is_done(self) -> bool:
        """Whether all that was taken is answered, or can be fetched."""
        return self.guard.active == 0 and self.jobs.unfinished == 0

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run what works in the background."""
        async with self.service.running(), self.jobs.running():
            yield

    async def files(self, request: Request, most_bytes: int, most_files: int, hold: Any) -> list[Upload]:
        """Return the files of a request's body. Raises: ProblemError."""
        headers = headers_of(request.scope)
        media_type_of(headers)
        limit_s = self.service.settings.limits.body_s
        body = await read_body(request.receive, headers, most_bytes, hold, limit_s)
        return await self.service.work(files_of, body, headers.get("content-type", ""), most_files)


class _Refusal(Response):
    """An answer that is a problem."""

    def __init__(self, problem: ProblemError) -> None:
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(self._problem, scope, receive, send)


class _Pieces(Response):
    """A body that is sent piece by piece, and none of them large: a client that reads slowly is one that reads."""

    def __init__(self, pieces: Sequence[Piece], media_type: str, headers: dict[str, str]) -> None:
        length = {"Content-Length": str(sum(map(len, pieces)))}
        super().__init__(media_type=media_type, headers=headers | length)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                part = bytes(piece[start : start + PIECE_BYTES])
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _fastapi(api: Api) -> FastAPI:
    app = FastAPI(
        title="pleura",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=api.lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirection would name the address that the client wrote, and drop https
        responses={"default": openapi.PROBLEM},
    )

    async def refused(request: Request, error: Exception) -> Response:
        return _Refusal(_problem_of(error, request))

    for kind in (ProblemError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refused)
    _add_predictions(app, api)
    _add_jobs(app, api)
    _add_states(app, api)
    _add_pages(app)
    described = app.openapi
    app.openapi = lambda: openapi.completed(described())  # type: ignore[method-assign]
    return app


def _problem_of(error: Exception, request: Request) -> ProblemError:
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError):
        return ProblemError("bad-parameter", "a parameter is given that cannot be read")
    if isinstance(error, HTTPException) and error.status_code == 405:
        # FastAPI names the methods of the first function at an address.
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
        allow = ", ".join(sorted({method for route in routes for method in route.methods}))
        return ProblemError("method-not-allowed", f"this address takes {allow}", Allow=allow)
    if isinstance(error, HTTPException) and error.status_code == 404:
        return ProblemError("not-found", "the API is at /v1/predict; /openapi.json has all of it")
    return internal()


def _add_predictions(app: FastAPI, api: Api) -> None:
    service, limits = api.service, api.service.settings.limits

    @app.post("/v1/predict", **openapi.PREDICT)
    async def predict(request: Request, objects: Object = None) -> Response:
        wanted = negotiate(request.headers.get("accept"), objects)
        service.refuse_unless_kept(wanted.objects)
        service.refuse_if_full()
        hold = service.held.hold()
        try:
            files = await api.files(request, limits.body_bytes, 1, hold)
            write = partial(
                render,
                wanted=wanted,
                algorithm=service.algorithm,
                triplet=service.triplet,
                request_id=request.scope["state"]["request_id"],
            )
            with service.place():
                work = service.answer(files.pop().content, write, with_grey=wanted.media_type == VIEW)
                pieces, media_type = await _unless_gone(request, work)
        finally:
            hold.release()
        return _Pieces(pieces, media_type, model_headers(service.algorithm))

    @app.post("/v1/predict:batch", status_code=202, **openapi.BATCH)
    async def predict_batch(request: Request) -> Response:
        api.jobs.refuse_if_full()
        hold, job = service.held.hold(), None
        try:
            files = await api.files(request, limits.batch_body_bytes, limits.files, hold)
            state = request.scope["state"]
            job = api.jobs.start(files, state["key"], hold, state["request_id"])
        finally:
            if job is None:  # else the job has it
                hold.release()
        where = f"/v1/jobs/{job.job_id}"
        headers = {"Location": where, "Retry-After": "1", **model_headers(service.algorithm)}
        return Response(as_json({**job.document(), "location": where}), 202, headers, JSON)


def _add_jobs(app: FastAPI, api: Api) -> None:
    @app.get("/v1/jobs/{job_id}", **openapi.JOB)
    async def job(request: Request, job_id: str) -> Response:
        found = api.jobs.find(job_id, request.scope["state"]["key"])
        document = {
            "request_id": request.scope["state"]["request_id"],
            "disclaimer": DISCLAIMER,
            "model": model_document(api.service.algorithm),
            **found.document(),
        }
        headers = {} if found.is_finished else {"Retry-After": "1"}
        api.jobs.fetched(found)
        return Response(as_json(document), headers=headers | model_headers(api.service.algorithm), media_type=JSON)

    @app.delete("/v1/jobs/{job_id}", status_code=204, **openapi.DELETE_JOB)
    async def delete_job(request: Request, job_id: str) -> Response:
        api.jobs.delete(api.jobs.find(job_id, request.scope["state"]["key"]))
        return Response(status_code=204)


def _add_states(app: FastAPI, api: Api) -> None:
    service = api.service

    @app.get("/v1/model", **openapi.MODEL)
    async def model() -> Response:
        limits = service.settings.limits
        document = {
            "disclaimer": DISCLAIMER,
            "model": model_document(service.algorithm),
            "objects": {media_type: list(OBJECTS[media_type]) for media_type in (PNG, DICOM)},
            "limits": {
                name: getattr(limits, name) for name in ("body_bytes", "batch_body_bytes", "files", "jobs", "queue")
            },
        }
        return Response(as_json(document), headers=model_headers(service.algorithm), media_type=JSON)

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        if not service.is_alive:
            raise internal()
        return Response(as_json({"status": "ok"}), media_type=JSON)

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        if service.stopping or not service.is_alive:
            raise ProblemError("stopping", "it takes nothing new", retry_after_s=5)
        return Response(as_json({"status": "ready"}), media_type=JSON)

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    def add(path: str, page: Page) -> None:
        async def get() -> Response:
            return Response(page.content, media_type=page.media_type, headers=HEADERS)

        app.add_api_route(path, get, methods=["GET", "HEAD"], include_in_schema=False)

    for path, page in PAGES.items():
        add(path, page)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` gives; given up when the client closes the connection. Raises: ProblemError (client-gone)."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ProblemError("client-gone", "the connection was closed before the answer")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
