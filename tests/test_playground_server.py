"""`pyxai.playground.serve`: what is handed out, what is refused, and live search."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import numpy as np
import pytest
import torch
from networks import random_net
from train_photos import COLOURS, SQUARE, photo

import pyxai
from pyxai.playground import build, serve, static_server
from pyxai.playground.editions import data_folder
from pyxai.playground.server import load_indexes, read_site

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from pyxai.playground import live as live_search  # noqa: E402
from pyxai.playground.explanations import Explainer, Explaining  # noqa: E402

SETTINGS = Explaining(None, ("auto",), False, 0, 1, 0)


def classifier():
    torch.manual_seed(0)
    names = ("blue", "green", "red", "other")
    return pyxai.Classifier(
        random_net(classes=4), class_names=names, preprocessing=SQUARE, name="small"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A site and the folders of its photos and features."""
    root, random = tmp_path_factory.mktemp("served"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "photos" / name).mkdir(parents=True)
        for number in range(3):
            photo(colour, (48, 40), random).save(root / "photos" / name / f"{number}.png")
    build(
        classifier(),
        root / "photos",
        root / "site",
        units=0,
        explained=0,
        undesirable=0,
        galleries=False,
        maps=("pca",),
        index=root / "index",
        progress=False,
    )
    (root / "secret.js").write_text("nobody's business")
    (root / "site" / "link.js").symlink_to(root / "secret.js")
    return root


def folder_of(made):
    """Where the data of the site are, in addresses."""
    return data_folder(made / "site").relative_to(made / "site").as_posix()


def asker(port):
    """A function that sends requests there: (status, headers, body)."""

    def request(address, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, address, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read()
        connection.close()
        return found

    return request


# ---- files ----


@pytest.fixture
def get(made):
    """Requests to a server of the site: (status, headers, body)."""
    server = static_server.make_server(made / "site", "127.0.0.1", 0, only_local=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()

    yield asker(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_of_the_site_are_handed_out(get, made):
    folder = folder_of(made)
    status, headers, body = get(f"/{folder}/site.js")
    assert status == 200
    assert body == (made / "site" / folder / "site.js").read_bytes()
    assert headers["Content-Type"] == "text/javascript"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    assert get("/")[2] == (made / "site" / "index.html").read_bytes()
    assert get("/?a=b#c")[0] == 200
    status, headers, body = get(f"/{folder}/sets/0/thumbs/0/1.jpg", method="HEAD")
    assert (status, body, headers["Content-Type"]) == (200, b"", "image/jpeg")


@pytest.mark.parametrize(
    "address",
    [
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "/data/../../secret.js",
        "//etc/passwd",
        "/link.js",
        "/data/",
        "/data/build.json",
        "/nothing.js",
        "/data%00/site.js",
        "/..\\secret.js",
        "/" + "a" * 5000 + ".js",
    ],
)
def test_nothing_else_is(get, address):
    status, headers, body = get(address)
    assert status == 404
    assert b"nobody" not in body
    assert b"secret" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_other_methods_are_refused(get):
    assert get("/data/site.js", method="POST")[0] == 501
    assert get("/data/site.js", method="DELETE")[0] == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example:80", 404)],
)
def test_requests_by_other_names_are_refused(get, host, status):
    assert get("/index.html", Host=host)[0] == status


def test_serve_until_it_is_interrupted(made):
    seen = []

    def look(address):
        seen.append(address)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(made / "site", port=0, ready=look)
    port = int(seen[0].rstrip("/").rpartition(":")[2])
    assert seen[0] == f"http://127.0.0.1:{port}/"
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))  # it is free


def test_bad_sites(tmp_path, made):
    with pytest.raises(ValueError, match="site: expected the folder of a site that"):
        serve(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "index.html").write_text('<meta name="data" content="data" />')
    (tmp_path / "data" / "site.js").write_text('playground.receive("site", {"format": 2});\n')
    with pytest.raises(ValueError, match="site: expected format 1, got 2"):
        serve(tmp_path)
    with pytest.raises(ValueError, match="port: expected a port from 0 to 65535"):
        serve(made / "site", port=70000)
    with pytest.raises(ValueError, match="got only models"):
        serve(made / "site", models=classifier())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve(made / "site", port=taken.getsockname()[1])


# ---- live search ----


@pytest.fixture(scope="module")
def live(made):
    indexes = load_indexes(read_site(made / "site"), classifier(), made / "index")
    explainers = [Explainer(indexes[0].classifier(), SETTINGS)]
    return live_search.Live(indexes, explainers, ["cosine", "euclidean"])


@pytest.fixture
def ask(made, live):
    """Requests to a live server: (status, headers, body)."""
    app = live_search.make_app(made / "site", live, only_local=True, max_bytes=100_000)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield asker(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def post(ask, body, address="/api/search?set=0&network=0&layer=0&metric=cosine&k=5", **headers):
    """(status, what was answered)."""
    headers = {"Content-Type": "application/octet-stream", **headers}
    status, _, answer = ask(address, "POST", body, **headers)
    return status, json.loads(answer)


def test_a_photo_finds_itself(ask, made):
    path = made / "photos" / "green" / "1.png"
    status, found = post(ask, path.read_bytes())
    assert status == 200
    assert found["ids"][0] == 4
    assert len(found["ids"]) == len(found["distances"]) == 5
    assert found["distances"][0] == pytest.approx(0, abs=1e-6)
    assert found["similarity"][0] == pytest.approx(100, abs=1e-3)
    assert found["size"] == [48, 40]
    shares = classifier()(path)[0].softmax(0)
    assert found["top"][0] == [int(shares.argmax()), pytest.approx(float(shares.max()), abs=1e-5)]
    assert found["maps"][0]["method"] == "cam"
    assert found["maps"][0]["region"] == [0, 0, 48, 40]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "got nothing"),
        (b"<svg onload=alert(1)>", 422, "not a photo in a known format"),
        (b"http://example.com/photo.jpg", 422, "not a photo"),
        (b"\xff\xd8\xff\xe0 and no more", 422, ""),
        (b"x" * 100_001, 413, "at most 100,000 bytes"),
    ],
)
def test_what_is_no_photo_is_refused(ask, body, status, reason):
    found, answer = post(ask, body)
    assert found == status
    assert reason in answer["error"]


def test_truncated_and_huge_photos_are_refused(ask, made, monkeypatch):
    whole = (made / "photos" / "red" / "0.png").read_bytes()
    assert post(ask, whole[: len(whole) // 2])[0] == 422
    monkeypatch.setattr(live_search, "MAX_PIXELS", 1000)
    status, answer = post(ask, whole)
    assert status == 413
    assert "48 × 40" in answer["error"]


@pytest.mark.parametrize(
    "wrong", ["set=1", "network=3", "network=-1", "layer=99", "metric=cosinus", "k=0", "k=999"]
)
def test_what_does_not_exist_is_refused(ask, made, wrong):
    body = (made / "photos" / "red" / "0.png").read_bytes()
    status, answer = post(ask, body, f"/api/search?{wrong}")
    assert status == 400
    assert answer["error"].startswith("no such")
    assert post(ask, body, "/api/search?layer=x")[0] == 400


def test_pages_of_other_sites_cannot_ask(ask, made):
    body = (made / "photos" / "red" / "0.png").read_bytes()
    for kind in ("text/plain", "multipart/form-data; boundary=x", "image/png"):
        assert post(ask, body, **{"Content-Type": kind})[0] == 415
    assert post(ask, body, Host="evil.example")[0] == 404
    status, headers, _ = ask("/api/search", "OPTIONS", Origin="http://evil.example")
    assert status == 405
    assert "access-control-allow-origin" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_too_many_photos_at_once_have_to_come_back(ask, monkeypatch):
    entered, go_on = threading.Barrier(3), threading.Event()

    def slow(self, *arguments):
        entered.wait(10)
        go_on.wait(10)
        return {"ids": []}

    monkeypatch.setattr(live_search.Live, "search", slow)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(post(ask, b"x")[0])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    entered.wait(10)
    assert post(ask, b"x")[0] == 503
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == [200, 200]


def test_the_live_site_hands_out_its_files_and_says_that_it_is_live(ask, made):
    assert ask("/")[2] == (made / "site" / "index.html").read_bytes()
    folder = folder_of(made)
    assert b'"available": true' in ask(f"/{folder}/live.js")[2]
    assert '"available":false' in (made / "site" / folder / "live.js").read_text()
    record = f"/{folder}/build.json"
    for address in ("/link.js", "/..%2fsecret.js", record, "/docs", "/openapi.json"):
        assert ask(address)[0] == 404


def test_networks_and_features_must_be_those_of_the_site(made, tmp_path):
    about = read_site(made / "site")
    torch.manual_seed(5)
    other = pyxai.Classifier(random_net(classes=4), preprocessing=SQUARE)
    with pytest.raises(ValueError, match="models: expected networks of the index"):
        load_indexes(about, other, made / "index")
    pyxai.ImageIndex.build(
        classifier(), made / "photos" / "red", directory=tmp_path / "0", progress=False
    )
    with pytest.raises(ValueError, match="index: expected the features that the site was built"):
        load_indexes(about, classifier(), tmp_path)
