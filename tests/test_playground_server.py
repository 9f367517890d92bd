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
from train_photos import COLORS, SQUARE, photo

import pyxai
from pyxai.playground import SiteSettings, build, serve, static_server
from pyxai.playground.editions import data_folder
from pyxai.playground.server import load_indexes, read_site
from pyxai.playground.site_files import open_file
from pyxai.serve import photos
from pyxai.serve.limits import Limits

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pyxai.playground import live as live_search
from pyxai.playground.explanations import Explainer, Explaining
from pyxai.serve import connections

SETTINGS = Explaining(methods=("auto",))


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
    for name, color in COLORS.items():
        (root / "photos" / name).mkdir(parents=True)
        for number in range(3):
            photo(color, (48, 40), random).save(root / "photos" / name / f"{number}.png")
    build(
        classifier(),
        root / "photos",
        root / "site",
        settings=SiteSettings(units=0, explained=0, undesirable=0, galleries=False, maps=("pca",)),
        index=root / "index",
        progress=False,
    )
    (root / "secret.js").write_text("nobody's business")
    for link, target in (
        ("link.js", root / "secret.js"),
        ("circle.js", "other.js"),
        ("other.js", "circle.js"),
        ("itself.js", "itself.js"),
        ("hidden.js", "data/.next/x.js"),
    ):
        (root / "site" / link).symlink_to(target)
    (root / "site" / "data" / ".next").mkdir()
    (root / "site" / "data" / ".next" / "x.js").write_text("nobody's business yet")
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

    request.port = port
    return request


# ---- files ----


@pytest.fixture
def get(made):
    """Requests to a server of the site: (status, headers, body)."""
    server = static_server.make_server(made / "site", "127.0.0.1", 0, Limits(), only_local=True)
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
        "/hidden.js",
        "/data/.next/x.js",
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
    for method in ("POST", "DELETE", "BREW"):
        status, headers, _ = get("/index.html", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:80", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example:80", 404),
        ("[::1]evil.com", 404),
        ("localhost:80@evil.com", 404),
    ],
)
def test_requests_by_other_names_are_refused(any_server, host, status):
    assert any_server("/index.html", Host=host)[0] == status


@pytest.fixture(params=["static", "live"])
def any_server(request):
    """Requests to each kind of server."""
    return request.getfixturevalue("get" if request.param == "static" else "ask")


def test_what_a_browser_has_is_not_sent_again(any_server, made):
    address = f"/{folder_of(made)}/site.js"
    _, headers, body = any_server(address)
    tag = headers["ETag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        status, headers, again = any_server(address, **{"If-None-Match": known})
        assert (status, again, headers["ETag"]) == (304, b"", tag)
        assert headers["Cache-Control"] == "no-cache"
    status, _, again = any_server(address, **{"If-None-Match": '"x"'})
    assert (status, again) == (200, body)
    status, headers, again = any_server(address, method="HEAD")
    assert (status, headers["ETag"], again) == (200, tag, b"")
    assert int(headers["Content-Length"]) == len(body)


def test_a_changed_file_has_another_tag(tmp_path):
    path, tags = tmp_path / "a.js", set()
    for text in ("one", "two", "three", "four"):
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(path)  # as builds do it
        found = open_file(tmp_path, "/a.js")
        with found.file:
            tags.add(found.tag)
    assert len(tags) == 4


def test_one_connection_serves_many_requests(any_server):
    connection = http.client.HTTPConnection("127.0.0.1", any_server.port, timeout=20)
    connection.connect()
    opened = connection.sock
    for address, status in (("/", 200), ("/index.html", 200), ("/none.js", 404), ("/", 200)):
        connection.request("GET", address)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.version) == (status, 11)
        assert connection.sock is opened
    connection.close()


def test_links_in_circles_are_no_files(any_server):
    for address in ("/circle.js", "/other.js", "/itself.js", "/itself.js/x.js"):
        assert any_server(address)[0] == 404
    assert any_server("/")[0] == 200


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
    limits = Limits(body_bytes=100_000, uploads=2)
    app = live_search.make_app(made / "site", live, limits, only_local=True)
    server = connections.server(app, limits)
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
    monkeypatch.setattr(photos, "MAX_PIXELS", 1000)
    status, answer = post(ask, whole)
    assert status == 413
    assert "48 × 40" in answer["error"]


def test_a_photo_that_is_huge_for_the_network_is_refused(ask, made, live, monkeypatch):
    """Its own pixels are few; what the network would see of it decides."""
    whole = (made / "photos" / "red" / "0.png").read_bytes()
    monkeypatch.setattr(photos, "MAX_SEEN", 32 * 32)
    assert post(ask, whole)[0] == 200
    monkeypatch.setattr(photos, "MAX_SEEN", 32 * 32 - 1)
    status, answer = post(ask, whole)
    assert status == 413
    assert "48 × 40, seen as 32 × 32" in answer["error"]


def test_what_a_network_does_not_take_is_refused(ask, made, monkeypatch):
    def fails(self, *arguments, **options):
        raise RuntimeError("Kernel size can't be greater\nand more")

    monkeypatch.setattr(Explainer, "of_input", fails)
    status, answer = post(ask, (made / "photos" / "red" / "0.png").read_bytes())
    assert status == 422
    assert answer["error"] == "the network does not take this photo: Kernel size can't be greater"


@pytest.mark.parametrize(
    "wrong", ["set=1", "network=3", "network=-1", "layer=99", "metric=cosinus", "k=0", "k=999"]
)
def test_what_does_not_exist_is_refused(ask, made, wrong):
    body = (made / "photos" / "red" / "0.png").read_bytes()
    status, answer = post(ask, body, f"/api/search?{wrong}")
    assert status == 400
    assert answer["error"].startswith("no such")
    assert post(ask, body, "/api/search?layer=x")[0] == 400


def test_pages_of_before_the_site_was_built_again_are_told(ask, made):
    body = (made / "photos" / "red" / "0.png").read_bytes()
    assert post(ask, body, f"/api/search?data={folder_of(made)}")[0] == 200
    status, answer = post(ask, body, "/api/search?data=data/0123456789ab")
    assert (status, answer["error"]) == (409, "the site was built again; reload the page")


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
    kind = {"Content-Type": "application/octet-stream"}
    status, headers, _ = ask("/api/search", "POST", b"x" * 100_000, **kind)
    assert status == 503
    assert int(headers["Retry-After"]) >= 1
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
