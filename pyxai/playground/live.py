"""Answers for photos that visitors of a playground bring (needs the extra `serve`)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from pyxai._errors import REFUSALS, passes_through
from pyxai.playground.editions import data_folder
from pyxai.playground.explanations import Explainer
from pyxai.playground.similar import NEIGHBORS
from pyxai.playground.site_files import HEADERS, SiteFile, open_file
from pyxai.search.index import ImageIndex
from pyxai.serve.guards import Addressed, Deadline, Headers, Receive, Refused, Scope, Send, Uploads
from pyxai.serve.jobs import Jobs
from pyxai.serve.limits import Limits
from pyxai.serve.photos import photo_of

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
            Refused: what was asked for does not exist, or the photo cannot be used.
        """
        start = time.perf_counter()
        if metric not in self.metrics or not 0 <= set_number < len(self.indexes):
            raise Refused(400, "no such set or metric")
        index = self.indexes[set_number]
        if not 0 <= network < len(index.networks):
            raise Refused(400, "no such network")
        known = index.networks[network]
        if not 0 <= layer < len(known.layers) or not 1 <= k <= NEIGHBORS:
            raise Refused(400, f"no such layer, or k beyond {NEIGHBORS}")
        classifier = index.classifier(known.name)
        photo = photo_of(body, [classifier.preprocessing])
        size = photo.size
        try:
            inputs = classifier.to_input(photo)
            del photo  # a thousand times what the network sees of it
            layer_name = known.layers[layer].name
            (found,) = index.search([inputs], k, metric=metric, layer=layer_name, model=known.name)
            told = self.explainers[network].of_input(inputs, size)
        except REFUSALS as error:
            if passes_through(error):
                raise Refused(503, "no memory for this photo just now") from error
            reason = str(error).partition("\n")[0][:300]
            raise Refused(422, f"the network does not take this photo: {reason}") from error
        return {
            "ids": found.ids.tolist(),
            "distances": found.distances.tolist(),
            "similarity": found.similarity.tolist(),
            "size": size,
            **told,
            "seconds": round(time.perf_counter() - start, 3),
        }


class _FileAnswer(Response):
    """A file of the site, or that the client has it already."""

    def __init__(self, found: SiteFile, request: Request) -> None:
        known = found.is_known(request.headers.get("if-none-match"))
        headers = {"ETag": found.tag} if known else found.headers
        super().__init__(status_code=304 if known else 200, headers=headers)
        self._found = found
        self._sends = not known and request.method != "HEAD"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._found.file:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            parts = self._found.parts() if self._sends else iter(())
            while part := await asyncio.to_thread(next, parts, b""):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def make_app(root: Path, live: Live, limits: Limits, *, only_local: bool) -> FastAPI:
    """The site with its live half.

    Args:
        root: folder of the site.
        live: what looks at photos.
        limits: of what visitors may ask.
        only_local: whether to answer only requests that address this machine by its own name.
    """
    root = root.resolve()
    folder = data_folder(root).relative_to(root).as_posix()
    app = FastAPI(title="pyxai playground", docs_url=None, redoc_url=None, openapi_url=None)
    jobs = Jobs(limits.jobs)

    async def search(
        request: Request,
        set: int = 0,
        network: int = 0,
        layer: int = 0,
        metric: str = "cosine",
        k: int = NEIGHBORS,
        data: str | None = None,
    ) -> Response:
        if data not in (None, folder):  # the numbers in an answer would be of other photos
            raise Refused(409, "the site was built again; reload the page")
        body = (await request.receive())["body"]  # `request.body()` would copy it
        if not body:
            raise Refused(422, "expected a photo, got nothing")
        return JSONResponse(
            await jobs.run(lambda: live.search(body, set, network, layer, metric, k))
        )

    def about() -> Response:
        networks = range(len(live.explainers))
        sets = range(len(live.indexes))
        told = {"available": True, "max_bytes": limits.body_bytes}
        record = json.dumps({**told, "sets": list(sets), "networks": list(networks)})
        return Response(f'playground.receive("live", {record});\n', media_type="text/javascript")

    def page(request: Request) -> Response:
        found = open_file(root, request.scope["path"])
        if found is None:
            raise HTTPException(404, "no such file")
        return _FileAnswer(found, request)

    def told(request: Request, error: Exception) -> Response:
        if isinstance(error, Refused):
            return JSONResponse({"error": error.reason}, error.status, error.headers)
        if isinstance(error, HTTPException):
            return JSONResponse({"error": str(error.detail)}, error.status_code)
        return JSONResponse({"error": "a number is missing"}, 400)

    for kind in (Refused, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, told)
    app.add_api_route("/api/search", search, methods=["POST"])
    # Pages of a site that is built anew while this runs find that nobody answers them.
    app.add_api_route(f"/{folder}/live.js", about)
    app.add_api_route("/{path:path}", page, methods=["GET", "HEAD"])
    # From the inside out. A page of another site cannot send this type without asking first, and
    # nobody answers.
    app.add_middleware(Deadline, limits=limits)
    app.add_middleware(Uploads, limits=limits, types=[_TYPE])
    app.add_middleware(Addressed, only_local=only_local)
    app.add_middleware(Headers, headers=HEADERS)
    return app
