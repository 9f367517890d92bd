"""The pages of the playground in a browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from networks import random_net
from train_photos import COLOURS, SQUARE, photo

import pyxai
from pyxai.playground import build, static_server
from pyxai.playground.explanations import Explainer, Explaining
from pyxai.playground.server import load_indexes, read_site

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium on the PATH", allow_module_level=True)

pytestmark = pytest.mark.slow
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--enable-unsafe-swiftshader"]  # WebGL without a GPU
HOSTILE = "<img src=x onerror=alert(1)>"
PHOTOS = 20  # of each class


def classifiers():
    torch.manual_seed(0)
    names = ["blue", "green", HOSTILE, "other"]
    first = random_net(classes=4)
    second = random_net(classes=7)
    return [
        pyxai.Classifier(first, class_names=names, preprocessing=SQUARE, name=f"net {HOSTILE}"),
        pyxai.Classifier(second, preprocessing=SQUARE, name="second"),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A site over 60 photos, a class and a photo with hostile names, and its features."""
    root, random = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    for name, colour in {**COLOURS, HOSTILE: COLOURS["red"]}.items():
        if name == "red":
            continue
        (root / "photos" / name).mkdir(parents=True)
        for number in range(PHOTOS):
            file = f"{HOSTILE}.png" if number == 3 else f"{number:02}.png"
            photo(colour, (48, 40), random).save(root / "photos" / name / file)
    build(
        classifiers(),
        root / "photos",
        root / "site",
        title=f"Colours {HOSTILE}",
        units=3,
        unit_steps=2,
        crops=2,
        undesirable=2,
        undesirable_steps=2,
        explained=30,
        maps=("pca",),
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


@contextlib.contextmanager
def served(root):
    server = static_server.make_server(root, "127.0.0.1", 0, only_local=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def address(made):
    with served(made / "site") as address:
        yield address


@pytest.fixture
def page(browser, address):
    """A page that notes what must not happen: errors, dialogs, requests to others."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("console", lambda told: problems.append(told.text) if told.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((address, "blob:")) else problems.append(asked.url)
        ),
    )
    page.set_default_timeout(10_000)
    yield page
    page.close()
    assert problems == []


def opened(page, address, route):
    page.goto(address + route)
    page.wait_for_selector("main > *", state="attached")
    return page


def until(page, expression, argument=None):
    """Waits until an expression is true; the pages' policy forbids Playwright's own way."""
    end = time.monotonic() + 10
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


def state(page):
    return dict(re.findall(r"(\w+)=([^&]+)", page.evaluate("location.hash")))


def shown(page):
    page.wait_for_selector(".results li")
    return [int(each.get_attribute("data-photo")) for each in page.query_selector_all(".result")]


# ---- search ----


def test_something_good_is_shown_at_once(page, address, made):
    opened(page, address, "")
    start = read_site(made / "site")["sets"][0]["start"]
    assert len(shown(page)) == 50
    summary = page.text_content(".summary")
    assert re.search(r"are \d+ of the nearest 15, and \d+ of the nearest 50", summary)
    assert page.get_attribute(".grid-cell[aria-pressed=true]", "data-photo") == str(start["photo"])
    assert page.query_selector("nav a[aria-current=page]").text_content() == "Search"
    assert page.query_selector("nav").text_content() == "SearchMapLayersCompareClassesAbout"


def test_results_are_those_of_the_index(page, address, made):
    opened(page, address, "#/search?photo=25&network=1&layer=2&metric=euclidean")
    index = pyxai.ImageIndex.load(made / "index" / "0")
    network = index.networks[1]
    layer = network.layers[2].name
    expected = index.search(25, 50, metric="euclidean", layer=layer, model=network.name)
    assert shown(page) == expected.ids.tolist()
    told = [each.text_content() for each in page.query_selector_all(".result .number")]
    assert told == [f"{each:.1f}\u202f%" for each in expected.similarity]
    marks = [each.get_attribute("aria-label") for each in page.query_selector_all(".mark")]
    same = [label == expected.query_label for label in expected.labels]
    assert marks == ["same class" if each else "another class" for each in same]


def test_clicks_change_photo_layer_network_and_distance(page, address):
    opened(page, address, "#/search?photo=25&layer=1&network=0")
    first = shown(page)
    page.click(".result >> nth=4")
    until(page, f"location.hash.includes('photo={first[4]}')")
    page.wait_for_selector(f".grid-cell[data-photo='{first[4]}'][aria-pressed=true]")
    page.select_option("select[aria-label=Layer]", index=0)
    until(page, "location.hash.includes('layer=0')")
    page.select_option("select[aria-label=Network]", label="second")
    until(page, "location.hash.includes('network=1')")
    page.select_option("select[aria-label=Distance]", label="Euclidean")
    until(page, "location.hash.includes('metric=euclidean')")
    assert state(page) == {
        "set": "0",
        "network": "1",
        "layer": "0",
        "metric": "euclidean",
        "photo": str(first[4]),
    }
    page.go_back()
    until(page, "location.hash.includes('metric=cosine')")
    assert page.input_value("select[aria-label=Distance]") == "cosine"
    page.go_back()
    page.go_back()
    page.go_back()
    until(page, "location.hash.includes('photo=25')")
    until(
        page,
        "list => [...document.querySelectorAll('.result')].map(e => +e.dataset.photo).join()"
        " === list.join()",
        first,
    )


def test_all_choices_are_revealed_on_demand(page, address):
    opened(page, address, "#/search?photo=1&layer=0")
    shown(page)
    assert not page.is_visible(".advanced")
    page.click("summary")
    page.wait_for_selector(".advanced")
    layers = page.query_selector_all(".tile-row >> nth=1 >> .tile")
    assert layers[0].get_attribute("aria-pressed") == "true"
    page.click(".tile-row >> nth=1 >> .tile >> nth=1")
    until(page, "location.hash.includes('layer=1')")
    page.wait_for_selector(".tile-row >> nth=1 >> .tile[aria-pressed=true] >> nth=0")
    assert "ranks the same" in page.text_content(".tile-row >> nth=2")


def test_photos_by_class(page, address):
    opened(page, address, "#/search?photo=1")
    shown(page)
    page.select_option("select[aria-label=Class]", index=2)
    until(
        page,
        "document.querySelectorAll('.grid-cell').length === 20 && "
        "[...document.querySelectorAll('.grid-cell')].every(e => e.title.startsWith('blue'))",
    )


def test_by_keyboard_alone(page, address):
    opened(page, address, "#/search?photo=1&layer=0&metric=cosine&network=0")
    shown(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("]")
    until(page, "location.hash.includes('layer=1')")
    page.keyboard.press("[")
    until(page, "location.hash.includes('layer=0')")
    page.focus(".grid-cell[tabindex='0']")
    before = page.evaluate("document.activeElement.dataset.place")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    after = page.evaluate("document.activeElement.dataset.place")
    assert int(after) > int(before) + 1
    photo = page.evaluate("document.activeElement.dataset.photo")
    page.keyboard.press("Enter")
    until(page, f"location.hash.includes('photo={photo}')")


# ---- the other screens ----


def test_map_shows_points_and_their_photos(page, address):
    opened(page, address, "#/map?photo=7&layer=0&network=0")
    page.wait_for_selector(".card img")
    assert page.query_selector_all(".legend-row[aria-pressed=true]").__len__() == 3
    assert len(page.query_selector_all(".strip li")) == 12
    ring = page.query_selector(".ring")
    assert ring.is_visible()
    before = ring.bounding_box()
    page.select_option("select[aria-label=Layer]", index=2)  # the same photos move
    until(page, "location.hash.includes('layer=2')")
    page.wait_for_timeout(1000)
    assert ring.bounding_box() != before
    box = ring.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "document.querySelector('.card .file')")
    page.click(".strip a >> nth=0")
    until(page, "!location.hash.includes('photo=7&') && location.hash.includes('photo=')")
    page.focus(".points")
    seen = page.evaluate("document.querySelector('.ring').style.transform")
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    until(page, f"document.querySelector('.ring').style.transform !== '{seen}'")
    page.click(".legend-row >> nth=1")
    assert page.get_attribute(".legend-row >> nth=1", "aria-pressed") == "false"


def test_map_without_webgl(browser, address):
    page = browser.new_page()
    page.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind === 'webgl' ? null : real.call(this, kind, ...rest); };"
    )
    opened(page, address, "#/map?photo=7")
    page.wait_for_selector(".card img")
    page.wait_for_timeout(300)
    painted = page.evaluate(
        "() => { const c = document.querySelector('.points'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.some((v) => v > 0); }"
    )
    assert painted
    page.close()


def test_a_unit_has_its_own_page(page, address, made):
    opened(page, address, "#/layers")
    page.wait_for_selector("table")
    rows = len(page.query_selector_all("tbody tr"))
    assert rows == read_site(made / "site")["networks"][0]["modules"]
    page.click(".layer-tiles .tile >> nth=1")
    page.wait_for_selector(".unit")
    assert len(page.query_selector_all(".unit")) == 3
    unit = page.get_attribute(".unit >> nth=1", "data-unit")
    page.click(".unit >> nth=1")
    page.wait_for_selector(".unit-large img")
    assert state(page) == {"network": "0", "layer": "1", "unit": unit}
    assert page.text_content("h2").endswith(f"channel {unit} of 12")
    assert len(page.query_selector_all(".crop")) == 2
    page.click("text=Next →")
    until(page, f"!location.hash.endsWith('unit={unit}')")
    page.click(".crop a >> nth=0")
    page.wait_for_selector(".overlay-canvas")


def test_compare_names_the_best_layer(page, address, made):
    opened(page, address, "#/compare?metric=euclidean&measure=P@1")
    page.wait_for_selector(".bars")
    about = read_site(made / "site")
    bars = page.query_selector_all(".bar-row")
    assert len(bars) == sum(len(each["layers"]) for each in about["networks"])
    best = page.text_content(".summary b")
    (row,) = page.query_selector_all(".track-bar.best")
    assert best.split()[-1] in row.evaluate("e => e.closest('.bar-row').textContent")
    assert len(page.query_selector_all(".chance")) == len(bars)
    page.select_option("select[aria-label=Measure]", label="mAP")
    until(page, "location.hash.includes('measure=mAP')")
    page.click(".bar-row >> nth=0")
    page.wait_for_selector(".results li")


def test_a_photo_with_its_explanations(page, address):
    opened(page, address, "#/photo?photo=3&network=0")
    page.wait_for_selector(".map-choice")
    titles = [each.text_content() for each in page.query_selector_all(".map-choice b")]
    assert titles[:2] == ["Photo", "CAM"]
    assert {"LayerCAM", "Sliding windows"} <= set(titles)
    pixels = "e => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data].join()"
    canvas = page.query_selector(".overlay-canvas")
    with_map = canvas.evaluate(pixels)
    page.click(".map-choice >> nth=0")
    until(page, "location.hash.includes('plain=1')")
    plain = canvas.evaluate(pixels)
    assert plain != with_map
    page.click(".map-choice >> nth=3")
    until(page, "location.hash.includes('map=2')")
    assert page.get_attribute(".map-choice >> nth=3", "aria-pressed") == "true"
    assert "probability" in page.text_content(".facts")
    page.fill("input[type=range]", "0")
    assert canvas.evaluate(pixels) == plain
    assert len(page.query_selector_all(".top li")) == 4
    page.click("text=Next photo →")
    until(page, "location.hash.includes('photo=4')")
    opened(page, address, "#/photo?photo=45")  # beyond the thirty with explanations
    page.wait_for_selector("text=built without explanations")


def test_classes_with_their_crops(page, address):
    opened(page, address, "#/classes?network=0")
    page.wait_for_selector(".class-row")
    page.fill("input[type=search]", "no such class")
    page.wait_for_selector("text=0 classes")
    page.fill("input[type=search]", "")
    page.click(".class-row >> nth=0")
    page.wait_for_selector(".crop")
    assert "crop" in page.text_content("main")
    page.click(".crop a >> nth=0")
    page.wait_for_selector(".overlay-canvas")


def test_about(page, address):
    opened(page, address, "#/about")
    assert "60 photos" in page.text_content("main")
    assert page.text_content("h1") == f"Colours {HOSTILE}"


# ---- names that users chose ----


@pytest.mark.parametrize(
    "route",
    [
        "#/search?photo=19",
        "#/map?photo=19",
        "#/photo?photo=19&network=0",
        "#/classes?network=0",
        "#/compare",
        "#/layers",
        "#/about",
    ],
)
def test_hostile_names_are_only_text(page, address, route):
    opened(page, address, route)
    page.wait_for_timeout(400)
    assert (
        page.evaluate(
            "document.querySelectorAll('img[onerror], img[src=x], script:not([src])').length"
        )
        == 0
    )
    assert HOSTILE in page.text_content("body")
    if "photo=19" in route:  # its file as well
        assert f"{HOSTILE}.png" in page.text_content("main")


# ---- links, files and sizes ----


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ("#/nothing", "there is no screen “nothing” here"),
        ("#/search?photo=999", "there is no photo 999 here"),
        ("#/search?layer=-1", "there is no layer -1 here"),
        ("#/search?metric=<b>", "there is no metric “<b>” here"),
        ("#/layers?network=0&layer=1&unit=999", "there is no unit 999 here"),
        ("#/map?map=tsne", "there is no map “tsne” here"),
    ],
)
def test_links_to_what_does_not_exist(page, address, route, told):
    opened(page, address, route)
    page.wait_for_selector(".error")
    assert told in page.text_content(".error")
    page.goto(address + "#/about")
    page.wait_for_selector(".question")


def test_files_that_are_missing_or_damaged_are_told(browser, made, tmp_path):
    shutil.copytree(made / "site", tmp_path / "site")
    layers = tmp_path / "site/data/sets/0/networks/0/layers"
    (layers / "1/neighbors-cosine-0.js").unlink()
    (layers / "0/neighbors-cosine-0.js").write_text("playground.receive(")
    with served(tmp_path / "site") as address:
        page = browser.new_page()
        opened(page, address, "#/search?photo=3&network=0&layer=1&metric=cosine")
        page.wait_for_selector(".error")
        assert "neighbors-cosine-0.js is missing" in page.text_content(".error")
        opened(page, address, "#/search?photo=3&network=0&layer=0&metric=cosine")
        until(page, "document.querySelector('.error')?.textContent.includes('is damaged')")
        opened(page, address, "#/search?photo=3&network=0&layer=2&metric=cosine")
        shown(page)
        page.close()


def test_opens_from_disk(browser, made):
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((made / "site" / "index.html").as_uri())
    assert len(shown(page)) == 50
    page.goto((made / "site" / "index.html").as_uri() + "#/photo?photo=3")
    page.wait_for_selector(".map-choice")
    page.goto((made / "site" / "index.html").as_uri() + "#/map?photo=3")
    page.wait_for_selector(".card img")
    page.close()
    assert problems == []


@pytest.mark.parametrize(
    "route",
    [
        *("", "#/map", "#/layers", "#/layers?network=0&layer=1", "#/compare", "#/classes"),
        *("#/about", "#/photo?photo=3", "#/classes?network=0&class=0"),
    ],
)
def test_nothing_is_wider_than_a_phone(browser, address, route):
    page = browser.new_page(viewport={"width": 375, "height": 700})
    opened(page, address, route)
    page.wait_for_timeout(400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()


def test_pictures_have_words_and_controls_have_names(page, address):
    for route in ("#/search?photo=3", "#/photo?photo=3", "#/layers?network=0&layer=1", "#/map"):
        opened(page, address, route)
        page.wait_for_timeout(300)
        unnamed = page.evaluate(
            "[...document.querySelectorAll('select, input, button, canvas')].filter((e) => "
            "!(e.getAttribute('aria-label') || e.textContent.trim() || e.querySelector('img[alt]')"
            " || e.labels?.length || e.closest('[aria-hidden=true], .map-thumb'))).length"
        )
        assert unnamed == 0
        assert page.evaluate("[...document.images].every((e) => e.hasAttribute('alt'))")


# ---- a photo of one's own ----


def test_no_form_where_nobody_answers(page, address):
    opened(page, address, "#/try")
    page.wait_for_selector("text=answers no questions")
    assert page.query_selector("input[type=file]") is None


def test_try_a_photo(browser, made, tmp_path):
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    import socket

    from pyxai.playground.live import Live, make_app

    indexes = load_indexes(read_site(made / "site"), classifiers(), made / "index")
    settings = Explaining(None, ("auto",), False, 0, 1, 0)
    explainers = [Explainer(indexes[0].classifier(n.name), settings) for n in indexes[0].networks]
    metrics = read_site(made / "site")["metrics"]
    app = make_app(made / "site", Live(indexes, explainers, metrics), only_local=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        page = browser.new_page()
        opened(page, f"http://127.0.0.1:{listening.getsockname()[1]}/", "#/try?network=0")
        page.set_input_files("input[type=file]", made / "photos" / "green" / "07.png")
        found = shown(page)
        assert found[0] == 46  # the file "03" is not there
        assert len(page.query_selector_all(".top li")) == 4
        (tmp_path / "notes.png").write_text("no photo at all")
        page.set_input_files("input[type=file]", tmp_path / "notes.png")
        page.wait_for_selector(".error")
        assert "known format" in page.text_content(".error")
        page.close()
        server.should_exit = True
        thread.join()
