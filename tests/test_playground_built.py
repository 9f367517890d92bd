"""A site as it is built, served and opened in a browser: builder, servers and pages together."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading

import numpy as np
import pytest
import torch
from networks import random_net
from train_photos import COLORS, SQUARE, photo

import pyxai
from pyxai.playground import SiteSettings, build, static_server
from pyxai.playground.explanations import Explainer, Explaining
from pyxai.playground.server import load_indexes, read_site
from pyxai.serve.limits import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium on the PATH", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
HOSTILE = "<img src=x onerror=alert(1)>"
PHOTOS = 20  # of each class


def classifiers():
    torch.manual_seed(0)
    names = ["blue", "green", HOSTILE, "other"]
    return [
        pyxai.Classifier(
            random_net(classes=4), class_names=names, preprocessing=SQUARE, name=f"net {HOSTILE}"
        ),
        pyxai.Classifier(random_net(classes=7), preprocessing=SQUARE, name="second"),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A site over 60 photos, a class, a photo and a network with hostile names; its features."""
    root, random = tmp_path_factory.mktemp("built"), np.random.default_rng(0)
    for name in ("blue", "green", HOSTILE):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(PHOTOS):
            file = f"{HOSTILE}.png" if number == 3 else f"{number:02}.png"
            picture = photo(COLORS.get(name, COLORS["red"]), (48, 40), random)
            picture.save(root / "photos" / name / file)
    build(
        classifiers(),
        root / "photos",
        root / "site",
        settings=SiteSettings(
            title=f"Colours {HOSTILE}",
            units=3,
            unit_steps=2,
            crops=2,
            undesirable=2,
            undesirable_steps=2,
            explained=30,
            maps=("pca",),
        ),
        index=root / "index",
        progress=False,
    )
    return root


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(made):
    server = static_server.make_server(made / "site", "127.0.0.1", 0, Limits(), only_local=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def watched(browser, address):
    """A page on which there must be no error, no dialog, and no request to anybody else."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("console", lambda told: told.type == "error" and problems.append(told.text))
    page.on(
        "request",
        lambda asked: asked.url.startswith((address, "blob:")) or problems.append(asked.url),
    )
    page.set_default_timeout(15_000)
    yield page
    page.close()
    assert problems == []


def shown(page):
    """The photos that are shown as found."""
    page.wait_for_selector(".results img")
    sources = [each.get_attribute("src") for each in page.query_selector_all(".results img")]
    return [int(re.search(r"(\d+)\.jpg$", source)[1]) for source in sources]


def test_results_are_those_of_the_index(browser, address, made):
    index = pyxai.ImageIndex.load(made / "index" / "0")
    network = index.networks[1]
    with watched(browser, address) as page:
        page.goto(f"{address}#/search?photo=25&network=1&layer=2&metric=euclidean")
        layer = network.layers[2].name
        found = index.search(25, 50, metric="euclidean", layer=layer, model=network.name)
        assert shown(page) == found.ids.tolist()
        same = sum(label == found.query_label for label in found.labels[:15])
        assert f"{same} of 15" in page.text_content(".summary")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("", ".results li"),
        ("#/search?photo=19", ".results li"),
        ("#/map?photo=19", "canvas"),
        ("#/explore", "main img"),
        ("#/layers?network=0", "table tbody tr"),
        ("#/layer?network=0&layer=1", ".units a"),
        ("#/compare", "main a"),
        ("#/photo?photo=0&network=0", ".multiple"),
        ("#/photo?photo=1", ".notice"),  # one of those without explanations
        ("#/classes?network=0", "main img"),
        ("#/about", "main h1"),
    ],
)
def test_every_screen_shows_what_was_built(browser, address, route, expected):
    with watched(browser, address) as page:
        page.goto(address + route)
        page.wait_for_selector(expected, state="attached")
        page.wait_for_timeout(200)
        injected = "document.querySelectorAll('img[onerror], img[src=x]').length"
        assert page.evaluate(injected) == 0
        broken = "[...document.images].filter((e) => e.complete && !e.naturalWidth).length"
        assert page.evaluate(broken) == 0
        assert HOSTILE in page.title() or HOSTILE in page.text_content("body")
        if route == "#/search?photo=19":  # a photo with a hostile name, in a class with one
            assert f"{HOSTILE}.png" in page.text_content("body")


def test_a_unit_leads_to_its_photos(browser, address):
    with watched(browser, address) as page:
        page.goto(f"{address}#/layer?network=0&layer=1")
        page.click(".units a >> nth=0")
        page.wait_for_selector(".crops a")
        assert len(page.query_selector_all(".crops a")) == 2
        page.click(".crops a >> nth=0")
        page.wait_for_url(re.compile("#/photo"))


def test_opens_from_disk(browser, made):
    page = browser.new_page()
    page.goto((made / "site" / "index.html").as_uri())
    assert len(shown(page)) == 50
    page.close()


def test_a_page_that_was_open_while_the_site_was_built_anew(browser, made, tmp_path):
    """It never shows photos of the new site under numbers of the old one."""
    for name in ("photos", "site", "index"):
        shutil.copytree(made / name, tmp_path / name)
    page = browser.new_page()
    page.goto((tmp_path / "site" / "index.html").as_uri() + "#/search?photo=0")
    assert len(shown(page)) == 50
    (tmp_path / "photos" / "blue" / "00.png").unlink()
    plain = SiteSettings(units=0, undesirable=0, galleries=False, explained=0, maps=("pca",))
    photos, site = tmp_path / "photos", tmp_path / "site"
    build(classifiers(), photos, site, settings=plain, progress=False)
    page.evaluate("location.hash = '#/map?photo=1'")
    page.wait_for_selector("[role=alert]")
    assert "is missing" in page.text_content("[role=alert]")
    page.click("text=Try again")
    page.wait_for_selector("canvas")
    page.evaluate("location.hash = '#/search?photo=0'")
    assert len(shown(page)) == 50
    assert page.evaluate("playground.site.sets[0].photos") == 3 * PHOTOS - 1
    page.close()


def test_no_form_where_nobody_answers(browser, address):
    with watched(browser, address) as page:
        page.goto(address)
        shown(page)
        assert "Your photo" not in page.text_content("header")


def test_try_a_photo(browser, made, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from pyxai.playground.live import Live, make_app
    from pyxai.serve import connections

    about = read_site(made / "site")
    indexes = load_indexes(about, classifiers(), made / "index")
    settings = Explaining(methods=("auto",))
    explainers = [Explainer(indexes[0].classifier(n.name), settings) for n in indexes[0].networks]
    live = Live(indexes, explainers, about["metrics"])
    app = make_app(made / "site", live, Limits(), only_local=True)
    server = connections.server(app, Limits())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        shown(page)
        page.click("header >> text=Your photo")
        page.set_input_files("input[type=file]", made / "photos" / "green" / "07.png")
        page.wait_for_selector("main .top li")
        assert shown(page)[0] == 46  # the file "03" is not there
        (tmp_path / "notes.png").write_text("no photo at all")
        page.set_input_files("input[type=file]", tmp_path / "notes.png")
        page.wait_for_selector("text=known format")
        page.close()
        server.should_exit = True
        thread.join()
