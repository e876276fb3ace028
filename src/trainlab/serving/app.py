"""The routes of the server: a page, what programs ask, and what watches over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.datastructures import UploadFile as Upload
from starlette.formparsers import MultiPartParser

from trainlab.serving import page, questions, uploads
from trainlab.serving.engine import NotServed
from trainlab.web import limits

if TYPE_CHECKING:
    from trainlab.serving.counts import Counts
    from trainlab.serving.engine import Engine

FORM: Any = {"max_files": 1, "max_fields": 8, "max_part_size": 1 << 17}


def application(engine: Engine, counts: Counts) -> FastAPI:
    """Return the application that answers by what the engine has loaded."""
    MultiPartParser.spool_max_size = limits.BODY + 1  # bytes: nothing of a visitor's goes to the disk
    app = FastAPI(title="trainlab", docs_url=None, redoc_url=None, form_limits=FORM)
    one = CapacityLimiter(1)  # at a time: a large picture takes a good part of the memory

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        return "ok"

    @app.get("/ready")
    async def ready() -> JSONResponse:
        now = engine.now
        known = {
            "serving": now.names,
            "digests": now.digests,
            "refused": engine.refused,
            "loads": engine.loads,
        }
        return JSONResponse(known, 200 if now.runners else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> bytes:
        return counts.text()

    @app.get("/card")
    async def card() -> JSONResponse:
        return JSONResponse(engine.now.cards)

    @app.get("/style.css")
    async def style() -> Response:
        return Response(page.text(page.STYLE), media_type="text/css", headers={"cache-control": "no-cache"})

    @app.post("/api/nearest")
    def nearest(question: questions.NearestQuestion) -> questions.NearestAnswer:
        return engine.now.runner("nearest").answer(question)

    @app.post("/api/sentiment")
    def sentiment(question: questions.SentimentQuestion) -> questions.SentimentAnswer:
        return engine.now.runner("sentiment").answer(question)

    @app.post("/api/caption")
    async def caption(picture: Annotated[UploadFile, File()]) -> questions.CaptionAnswer:
        runner, content = engine.now.runner("caption"), await picture.read()
        return await run_sync(lambda: runner.answer(uploads.read(content)), limiter=one)

    @app.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse, include_in_schema=False)
    async def show() -> str:
        return page.shown(engine.now)

    @app.post("/", include_in_schema=False)
    async def ask(request: Request) -> HTMLResponse:
        async with request.form(**FORM) as form:
            clean = questions.clean
            asked = {clean(key): clean(value) for key, value in form.items() if isinstance(value, str)}
            sent = next((value for value in form.values() if isinstance(value, Upload)), None)
            content = await sent.read() if sent else b""
        limiter = one if content else None
        html, status = await run_sync(page.answered, engine.now, asked, content, limiter=limiter)
        return HTMLResponse(html, status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": questions.sentence(error.errors())}, 422)

    @app.exception_handler(NotServed)
    @app.exception_handler(uploads.PictureError)
    async def unanswered(_: Request, error: NotServed | uploads.PictureError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, error.status)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": page.FAILED}, 500)

    return app
