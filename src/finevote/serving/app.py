"""The routes: what can be asked, and what is answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from finevote.serving import schemas
from finevote.serving.docs_page import docs_page
from finevote.serving.edge import Edge
from finevote.serving.lifecycle import Lifecycle
from finevote.serving.metrics import Metrics
from finevote.serving.reading import Memory, Upload, find_uploads, read_body
from finevote.serving.refusals import Refusal, unavailable
from finevote.serving.security import page_policy
from finevote.serving.served import Served, load_served
from finevote.serving.service import Service
from finevote.serving.settings import Settings, read_settings

_ABOUT = (
    "Names what is in photographs, says how sure it is, and shows where the votes lie that decided.\n\n"
    "What an image is, is told by its first bytes: names and declared types are not looked at. Every refusal is JSON "
    "of one form, and says what was wrong, what is allowed and what to do."
)
_KINDS = ("image/jpeg", "image/png", "image/webp", "image/heic", "application/octet-stream")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_MEANINGS = {
    400: "The body is empty, or the form is broken.",
    401: "The API key is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels or images.",
    415: "No image of a format that is read.",
    422: "The image is damaged, or the query cannot be answered.",
    429: "Too much is waiting: see Retry-After.",
    500: "The server failed; its log says more.",
    501: "This model cannot be explained.",
    503: "The server is stopping, or not ready.",
    504: "There was no answer in time.",
}


def create_app(settings: Settings, *, served: Served | None = None) -> FastAPI:
    """Return the application, its model loaded and its threads running until the application's life ends.

    Args:
        settings: what it was told.
        served: the model, if it is loaded already.

    Raises:
        FinevoteError: the model cannot be loaded.
    """
    metrics, lifecycle = Metrics(), Lifecycle()
    service = Service(served or load_served(settings), settings=settings, metrics=metrics)
    reference = service.served.reference
    metrics.describe_model(name=reference.name, sha256=reference.sha256, version=version("finevote"))
    metrics.watch(num_waiting=lambda: service.num_waiting, num_in_flight=lambda: lifecycle.num_in_flight)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        lifecycle.stop()
        service.close()

    app = FastAPI(
        title=f"finevote: {reference.name}",
        description=_ABOUT,
        version=version("finevote"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    app.state.lifecycle = lifecycle
    _answer_errors(app)
    _add_work(app, service, settings)
    _add_state(app, service, lifecycle, metrics)
    _add_pages(app)
    paths = {str(getattr(route, "path", "")) for route in app.routes}
    app.add_middleware(Edge, settings=settings, lifecycle=lifecycle, metrics=metrics, paths=paths)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Content-Type"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return app


def from_environment() -> FastAPI:
    """Return the application as the environment has it, for servers that take a factory."""
    return create_app(read_settings())


def _add_work(app: FastAPI, service: Service, settings: Settings) -> None:
    """Add what needs the model."""
    memory = Memory(settings.memory_bytes)

    uploads_of = partial(_uploads_of, service=service, settings=settings, memory=memory)

    @app.post(
        "/v1/predict",
        response_model=schemas.PredictAnswer,
        responses=_refusals(400, 401, 408, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra=_takes_images("curl -F images=@photo.jpg 'http://127.0.0.1:8000/v1/predict?top=3'"),
    )
    async def predict(request: Request, query: Annotated[schemas.PredictQuery, Query()]) -> Any:
        """Name what is in one image or several.

        Several are the files of the field `images` of a form; one may be the body itself. Of several, one that cannot
        be read has its error in its place; if none can be read, the request is refused.
        """
        async with uploads_of(request) as uploads:
            return await service.predict(uploads, query)

    @app.post(
        "/v1/explain",
        response_model=schemas.ExplainAnswer,
        responses=_refusals(400, 401, 408, 413, 415, 422, 429, 500, 501, 503, 504)
        | {200: {"content": {"image/png": _BINARY}, "description": "All that is known; or with format=png a picture."}},
        openapi_extra=_takes_images(
            "curl -F images=@photo.jpg 'http://127.0.0.1:8000/v1/explain?format=png' -o votes.png"
        ),
    )
    async def explain(request: Request, query: Annotated[schemas.ExplainQuery, Query()]) -> Any:
        """Say why one image is named as it is: its votes, layer by layer, and why not another class."""
        async with uploads_of(request) as uploads:
            if len(uploads) > 1:
                raise Refusal(400, f"got {len(uploads)} images", allowed="one image", what_to_do="send them one by one")
            told = await service.explain(uploads[0], query)
        return Response(told, media_type="image/png") if isinstance(told, bytes) else told

    @app.get("/v1/model", response_model=schemas.ModelAnswer, responses=_refusals(401, 422, 503))
    async def model() -> Any:
        """Say what is served: classes, figures with intervals, what can be promised, limits, licences."""
        return service.card


@asynccontextmanager
async def _uploads_of(
    request: Request, *, service: Service, settings: Settings, memory: Memory
) -> AsyncIterator[list[Upload]]:
    """Yield the images of a request; the memory that they take is free again when the block ends."""
    with memory.held() as held:
        body = await read_body(request.stream(), request.headers, settings=settings, held=held)
        held.take(len(body))  # its parts, once more
        find = partial(find_uploads, body, request.headers.get("content-type", ""), settings=settings)
        del body
        yield await service.in_pool(find)


def _add_state(app: FastAPI, service: Service, lifecycle: Lifecycle, metrics: Metrics) -> None:
    """Add what those who run servers ask."""

    @app.get("/healthz", response_model=schemas.Health)
    async def healthz() -> Any:
        """Say that the process lives."""
        return schemas.Health(status="alive")

    @app.get("/readyz", response_model=schemas.Health, responses=_refusals(503))
    async def readyz() -> Any:
        """Say whether requests are taken."""
        if lifecycle.is_stopping or not service.is_ready:
            raise unavailable("the server is stopping" if lifecycle.is_stopping else "the model does not answer")
        return schemas.Health(status="ready")

    @app.get(
        "/metrics",
        response_class=Response,
        responses=_refusals(401) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def measured() -> Any:
        """Give counts and times of this process, in Prometheus's text format."""
        return Response(metrics.render(), media_type=metrics.content_type)


def _add_pages(app: FastAPI) -> None:
    """Add what browsers show."""
    html = files("finevote.serving").joinpath("static/index.html").read_text(encoding="utf-8")
    policy = page_policy(html)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Any:
        return HTMLResponse(html, headers={"content-security-policy": policy, "cache-control": "no-cache"})

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> Any:
        text = docs_page(app.openapi())
        return HTMLResponse(text, headers={"content-security-policy": page_policy(text)})


def _answer_errors(app: FastAPI) -> None:
    """Let the framework's own refusals look as ours do."""

    async def refuse_path(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for this alone
        allowed = dict(error.headers or {}).get("Allow", "")
        told = Refusal(
            error.status_code,
            str(error.detail).lower(),
            allowed=allowed,
            what_to_do="see /docs for what can be asked",
            headers=error.headers,
        )
        return JSONResponse(told.to_dict(), told.status, headers=told.headers)

    async def refuse_query(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
        problems = "; ".join(
            f"{item['loc'][-1]}: {item['msg']}".replace("Input should", "it should") for item in error.errors()
        )
        told = Refusal(422, f"the query is not valid: {problems}", what_to_do="see /docs for what can be asked")
        return JSONResponse(told.to_dict(), told.status)

    app.add_exception_handler(HTTPException, refuse_path)
    app.add_exception_handler(RequestValidationError, refuse_query)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}


def _takes_images(example: str) -> dict[str, Any]:
    form = {
        "schema": {
            "type": "object",
            "required": ["images"],
            "additionalProperties": False,
            "properties": {
                "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            },
        }
    }
    content = {"multipart/form-data": form, **dict.fromkeys(_KINDS, _BINARY)}
    return {"requestBody": {"required": True, "content": content}, "x-example": example}
