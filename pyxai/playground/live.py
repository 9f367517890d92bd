"""Answers for photos that visitors of a playground bring (needs the extra `serve`)."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from PIL import Image, UnidentifiedImageError

from pyxai.images import ImageError, open_photo
from pyxai.images.reading import readable_formats
from pyxai.playground.editions import data_folder
from pyxai.playground.explanations import Explainer
from pyxai.playground.similar import NEIGHBORS
from pyxai.playground.static_server import HEADERS, file_of, is_local
from pyxai.search.index import ImageIndex

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
_AT_ONCE = 2  # photos that are looked at together; more have to come back
_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Live:
    """What is needed to look at new photos.

    Attributes:
        indexes: of each data set of the site, with its networks.
        explainers: of each network of the site.
        metrics: those of the site.
    """

    indexes: Sequence[ImageIndex]
    explainers: Sequence[Explainer]
    metrics: Sequence[str]

    def search(
        self, body: bytes, set_number: int, network: int, layer: int, metric: str, k: int
    ) -> dict[str, Any]:
        """What is near to a photo, which classes it has and what speaks for them.

        Raises:
            HTTPException: what was asked for does not exist, or the photo cannot be used.
        """
        start = time.perf_counter()
        if metric not in self.metrics or not 0 <= set_number < len(self.indexes):
            raise HTTPException(400, "no such set or metric")
        index = self.indexes[set_number]
        if not 0 <= network < len(index.networks):
            raise HTTPException(400, "no such network")
        known = index.networks[network]
        if not 0 <= layer < len(known.layers) or not 1 <= k <= NEIGHBORS:
            raise HTTPException(400, f"no such layer, or k beyond {NEIGHBORS}")
        photo = decoded(body)
        try:
            found = index.search(
                photo, k, metric=metric, layer=known.layers[layer].name, model=known.name
            )
            told = self.explainers[network](photo)
        except (ImageError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        return {
            "ids": found.ids.tolist(),
            "distances": found.distances.tolist(),
            "similarity": found.similarity.tolist(),
            "size": photo.size,
            **told,
            "seconds": round(time.perf_counter() - start, 3),
        }


def decoded(body: bytes) -> Image.Image:
    """The photo that was sent.

    Raises:
        HTTPException: it is none, or too large.
    """
    try:
        with Image.open(io.BytesIO(body), formats=readable_formats()) as picture:
            width, height = picture.size
        if width * height > MAX_PIXELS:
            told = f"a photo of at most {MAX_PIXELS:,} pixels, got {width} × {height}"
            raise HTTPException(413, f"expected {told}")
        return open_photo(io.BytesIO(body), name="photo")
    except (ImageError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = error.reason if isinstance(error, ImageError) else "not a photo in a known format"
        raise HTTPException(422, reason) from error
    except (OSError, ValueError, SyntaxError) as error:  # decoders fail in every way there is
        raise HTTPException(422, "a damaged photo") from error


def make_app(root: Path, live: Live, *, only_local: bool, max_bytes: int = MAX_BYTES) -> FastAPI:
    """The site with its live half.

    Args:
        root: folder of the site.
        live: what looks at photos.
        only_local: whether to answer only requests that address this machine by its own name.
        max_bytes: of a photo.
    """
    root = root.resolve()
    app = FastAPI(title="pyxai playground", docs_url=None, redoc_url=None, openapi_url=None)
    free = threading.BoundedSemaphore(_AT_ONCE)

    def look(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if not free.acquire(blocking=False):
            raise HTTPException(503, "busy with other photos; try again in a moment")
        try:
            return work()
        finally:
            free.release()

    async def search(
        request: Request,
        set: int = 0,
        network: int = 0,
        layer: int = 0,
        metric: str = "cosine",
        k: int = NEIGHBORS,
    ) -> Response:
        # A page of another site cannot send this type without asking first, and nobody answers.
        if request.headers.get("content-type") != _TYPE:
            raise HTTPException(415, f"expected the bytes of a photo as {_TYPE}")
        body = await _read(request, max_bytes)
        return JSONResponse(
            await asyncio.to_thread(look, lambda: live.search(body, set, network, layer, metric, k))
        )

    def about() -> Response:
        networks = range(len(live.explainers))
        sets = range(len(live.indexes))
        told = {"available": True, "max_bytes": max_bytes}
        record = json.dumps({**told, "sets": list(sets), "networks": list(networks)})
        return Response(f'playground.receive("live", {record});\n', media_type="text/javascript")

    def page(path: str) -> Response:
        found = file_of(root, path)
        if found is None:
            raise HTTPException(404, "no such file")
        return FileResponse(found)

    async def checked(request: Request, call_next: Any) -> Response:
        if only_local and not is_local(request.headers.get("host")):
            response: Response = JSONResponse({"error": "no such host"}, 404)
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    def told(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else "a number is missing"
        return JSONResponse({"error": str(text)}, status)

    app.middleware("http")(checked)
    app.add_exception_handler(HTTPException, told)
    app.add_exception_handler(RequestValidationError, told)
    app.add_api_route("/api/search", search, methods=["POST"])
    # Pages of a site that is built anew while this runs find that nobody answers them.
    app.add_api_route(f"/{data_folder(root).relative_to(root).as_posix()}/live.js", about)
    app.add_api_route("/{path:path}", page, methods=["GET", "HEAD"])
    return app


async def _read(request: Request, most: int) -> bytes:
    """The body, which is never held beyond the limit.

    Raises:
        HTTPException: it is too long, or empty.
    """
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise HTTPException(413, f"expected a photo of at most {most:,} bytes")
        parts.append(part)
    if not length:
        raise HTTPException(422, "expected a photo, got nothing")
    return b"".join(parts)
