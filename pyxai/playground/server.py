"""Serves a playground: its files, and, if asked for, answers for new photos."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pyxai._errors import MissingExtraError, argument_error, check_count
from pyxai.playground.editions import data_folder
from pyxai.playground.explanations import Explainer, Explaining
from pyxai.playground.static_server import make_server
from pyxai.playground.writing import read_data
from pyxai.search.index import ImageIndex
from pyxai.search.networks import Models, named
from pyxai.serve.hosts import is_loopback
from pyxai.serve.limits import Limits

if TYPE_CHECKING:
    from pyxai.playground.live import Live

PathLike: TypeAlias = "str | os.PathLike[str]"

LOOPBACK = "127.0.0.1"


def serve(
    site: PathLike,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    models: Models | None = None,
    index: PathLike | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves a site that `build` made, until it is interrupted.

    Only files of the site are handed out, and by default only to this machine. With the networks
    and the folder of features, visitors can also search by photos of their own (extra `serve`):
    these are looked at in memory and forgotten. Nothing is fetched from anywhere.

    Args:
        site: the folder.
        host: the address to listen at. Others than the default let other machines in; there is no
            password, so put a real web server in front of it.
        port: 0 for any that is free.
        models: the networks that the site was built with, for live search.
        index: the folder of features that it was built with, for live search.
        limits: how much visitors may ask of the server, and how slowly; the usual by default.
        ready: is called with the site's address once it can be opened.

    Raises:
        ValueError: there is no such site; only one of `models` and `index` is given; they are not
            those of the site.
        MissingExtraError: live search without FastAPI and uvicorn.
        OSError: the port is taken.
    """
    root = Path(site)
    about = read_site(root)
    if not 0 <= check_count("port", port, least=0) <= 65535:
        raise argument_error("port", "a port from 0 to 65535", port)
    if (models is None) != (index is None):
        got = "models" if index is None else "index"
        raise ValueError(f"index: expected models and index together, or neither, got only {got}")
    if models is None or index is None:
        _serve_files(root, host, port, limits or Limits(), ready)
    else:
        live = _live(about, models, Path(index))
        _serve_live(root, live, host, port, limits or Limits(), ready)


def read_site(root: Path) -> dict[str, Any]:
    """What site.js says.

    Raises:
        ValueError: there is no site in the folder, a damaged one, or one of another version.
    """
    try:
        about = read_data(data_folder(root) / "site.js")
    except (OSError, ValueError) as error:
        expected = "the folder of a site that `pyxai playground build` finished"
        raise ValueError(f"site: expected {expected}, got {root}: {error}") from error
    if about.get("format") != 1:
        raise ValueError(f"site: expected format 1, got {about.get('format')!r}")
    return about


def _serve_files(
    root: Path, host: str, port: int, limits: Limits, ready: Callable[[str], None] | None
) -> None:
    server = make_server(root, host, port, limits, only_local=is_loopback(host))
    try:
        if ready is not None:
            ready(_address(host, server.server_address[1]))
        server.serve_forever()
    finally:
        server.server_close()


def _live(about: dict[str, Any], models: Models, index: Path) -> Live:
    """What looks at photos.

    Raises:
        ValueError: networks or features are not those of the site.
        MissingExtraError: FastAPI or uvicorn is missing.
    """
    try:
        import uvicorn  # noqa: F401

        from pyxai.playground.live import Live
    except ImportError as error:
        raise MissingExtraError("live search", "fastapi and uvicorn", "serve") from error
    indexes = load_indexes(about, models, index)
    classifiers = [indexes[0].classifier(each.name) for each in indexes[0].networks]
    settings = Explaining(methods=("auto",))
    return Live(indexes, [Explainer(each, settings) for each in classifiers], about["metrics"])


def _serve_live(
    root: Path,
    live: Live,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[str], None] | None,
) -> None:
    from pyxai.playground.live import make_app
    from pyxai.serve.connections import run

    app = make_app(root, live, limits, only_local=is_loopback(host))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        if ready is not None:
            ready(_address(host, listening.getsockname()[1]))
        run(app, listening, limits)


def load_indexes(about: dict[str, Any], models: Models, folder: Path) -> list[ImageIndex]:
    """The features of each data set, with their networks.

    Raises:
        ValueError: they are not those of the site.
    """
    found = []
    for number, described in enumerate(about["sets"]):
        index = ImageIndex.load(folder / str(number), models)
        layers = [[layer.name for layer in each.layers] for each in index.networks]
        wanted = [[layer["name"] for layer in each["layers"]] for each in about["networks"]]
        if index.version != described["features"] or layers != wanted:
            expected = f"the features that the site was built with ({described['photos']} photos)"
            raise argument_error("index", expected, f"{folder / str(number)}: {index!r}")
        found.append(index)
    given = len(named(models))
    if given != len(about["networks"]):
        raise argument_error("models", f"the site's {len(about['networks'])} networks", given)
    return found


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
