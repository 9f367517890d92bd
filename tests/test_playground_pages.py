"""The pages of a playground site, used as a reader would in a Chromium that is already there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playground_site import (
    CLASSES,
    HOSTILE_CLASS,
    HOSTILE_PHOTO,
    Served,
    draw,
    make_site,
    save,
    served,
    write,
)

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)
if not CHROMIUM:
    pytest.skip("needs a Chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
Page = Any
expect = playwright.expect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site") / "site")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served(folder) as state:
        yield state


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """What a page did that it should not have, or might not have."""

    def __init__(self, page: Page) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(10_000)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def page(browser: Any, server: Served) -> Iterator[Page]:
    """A page whose console stays empty and that asks only the server it came from."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    shown = context.new_page()
    watched = Watched(shown)
    yield shown
    context.close()
    assert watched.problems == []
    elsewhere = [
        url for url in watched.requests if not url.startswith((server.address, "blob:", "data:"))
    ]
    assert elsewhere == []


def results(page: Page) -> list[str]:
    """Which photos are shown as found."""
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    sources = page.locator(".results img").evaluate_all(
        "all => all.map(i => i.getAttribute('src'))"
    )
    return [re.search(r"(\d+)\.jpg", source)[1] for source in sources]  # type: ignore[index]


def test_first_view_shows_something_good(page: Page, server: Served) -> None:
    page.goto(server.address)
    expect(page.get_by_role("heading", level=1)).to_have_text("What does TinyNet find alike?")
    expect(page.locator(".results li")).to_have_count(50)
    expect(page.locator(".query-text h2")).to_contain_text("triangle")
    expect(page.locator(".summary")).to_contain_text("of 15")
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_text(
        ["Search", "Map", "Explore", "Compare", "Classes", "About"]
    )


def test_search_by_click_and_back(page: Page, server: Served) -> None:
    page.goto(server.address)
    first = results(page)
    assert "2" not in first  # itself
    page.locator(".results a").first.click()
    expect(page).to_have_url(re.compile(rf"photo={first[0]}(&|$)"))
    expect(page.locator(".query-picture img")).to_have_attribute(
        "src", re.compile(rf"/{first[0]}\.jpg")
    )
    assert results(page) != first
    page.go_back()
    expect(page.locator(".query-picture img")).to_have_attribute("src", re.compile(r"/2\.jpg"))
    assert results(page) == first
    page.go_forward()
    expect(page.locator(".query-picture img")).to_have_attribute(
        "src", re.compile(rf"/{first[0]}\.jpg")
    )
    chosen = page.locator(".cell").nth(9).get_attribute("data-photo")
    page.locator(f'.cell[data-photo="{chosen}"]').click()
    expect(page).to_have_url(re.compile(rf"photo={chosen}(&|$)"))
    expect(page.locator(f'.cell[data-photo="{chosen}"]')).to_have_attribute("aria-selected", "true")


def test_marks_right_and_wrong_by_more_than_colour(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/search?photo=0&layer=0&network=0")
    ids = results(page)
    marks = page.locator(".results .mark").all_text_contents()
    judged = [photo for photo in ids if photo != "59"]  # the one without a class has no mark
    assert marks == ["✓" if int(photo) % 5 == 0 else "×" for photo in judged]
    right = sum(mark == "✓" for mark in marks[:15])
    expect(page.locator(".summary strong")).to_have_text(f"{right} of 15")


def test_change_of_metric_layer_and_model(page: Page, server: Served) -> None:
    page.goto(server.address)
    cosine = results(page)
    page.get_by_label("Distance").select_option("manhattan")
    expect(page).to_have_url(re.compile("metric=manhattan"))
    manhattan = results(page)
    assert manhattan != cosine
    page.get_by_label("Layer", exact=True).select_option("0")
    expect(page).to_have_url(re.compile("layer=0"))
    assert results(page) != manhattan
    page.get_by_label("Model").select_option("1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("WideNet-50")
    page.get_by_label("Data set").select_option("1")
    expect(page.locator(".results li")).to_have_count(11)


def test_layout_stays(page: Page, server: Served) -> None:
    """Other results change pictures and bars, and move nothing."""
    page.goto(server.address)
    before = results(page)
    places = """tiles => tiles.map(tile => {
      const { x, y, width, height } = tile.getBoundingClientRect();
      return [x, y, width, height];
    })"""
    first = page.locator(".results li, .grid, .query").evaluate_all(places)
    page.get_by_role("heading", level=1).click()
    for key in ["ArrowLeft", "m", "]"]:
        page.keyboard.press(key)
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    assert results(page) != before
    assert page.locator(".results li, .grid, .query").evaluate_all(places) == first


def test_metrics_of_one_order_find_the_same(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/search?metric=euclidean")
    euclidean = results(page)
    page.goto(f"{server.address}#/search?metric=sqeuclidean")
    assert results(page) == euclidean


def test_deep_link(page: Page, server: Served) -> None:
    page.goto(
        f"{server.address}#/search?set=0&photo=12&network=1&layer=1&metric=euclidean&advanced=1"
    )
    expect(page.locator(".query-picture img")).to_have_attribute("src", re.compile(r"/12\.jpg"))
    expect(page.get_by_label("Layer", exact=True)).to_have_value("1")
    expect(page.get_by_label("Distance")).to_have_value("euclidean")
    expect(page.locator("#advanced .option[aria-current]")).to_have_count(3)
    expect(page).to_have_title(re.compile("WideNet-50"))


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("#/search?photo=9999", "9999"),
        ("#/search?metric=hamming", "hamming"),
        ("#/nothing", "no page “nothing”"),
        ("#/photo?photo=-1", "-1"),
        ("#/unit?layer=0&unit=63", "Channel 63"),
        ("#/constructor", "no page"),
        ("#/own", "serve --live"),
    ],
)
def test_wrong_link_is_explained(page: Page, server: Served, link: str, said: str) -> None:
    page.goto(server.address + link)
    expect(page.get_by_role("alert")).to_contain_text("leads nowhere")
    expect(page.get_by_role("alert")).to_contain_text(said)
    page.get_by_role("link", name="To the first page").click()
    expect(page.locator(".results li")).to_have_count(50)


def test_grid_orders_and_filters(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/search?photo=0")
    page.get_by_label("Order of the photos").select_option("class")
    expect(page.locator(".grid-title").first).to_have_text("circle · 12")
    page.get_by_label("Only photos of a class").select_option("1")
    expect(page.locator(".chooser [role=status]")).to_have_text("12 of 60 photos")
    page.get_by_label("Only photos whose name has").fill("00006")
    expect(page.locator(".cell")).to_have_count(1)
    expect(page).to_have_url(re.compile("find=00006"))
    page.reload()
    expect(page.locator(".cell")).to_have_count(1)


def test_hostile_names_are_text(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/search?photo=3")
    expect(page.locator(".file")).to_have_text(HOSTILE_PHOTO)
    for link in [
        "search?photo=4",
        "map",
        "photo?photo=4",
        "compare",
        "classes",
        "class?class=4",
        "photo?photo=3",
    ]:
        page.goto(f"{server.address}#/{link}")
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        assert page.locator("main script, [onerror]").count() == 0
    expect(page.locator(".file")).to_have_text(HOSTILE_PHOTO)
    page.goto(f"{server.address}#/class?class=4")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_CLASS)
    assert not [path for path in server.sent if path.endswith("/x")]


def test_open_a_unit(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/explore?network=0")
    page.locator(".option", has_text="blocks.2.conv").click()
    expect(page.locator(".units li")).to_have_count(30)
    expect(page.locator(".units li", has_text="silent")).to_have_count(1)
    page.get_by_role("link", name="channel 7", exact=False).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Channel 7")
    expect(page.locator(".crops li")).to_have_count(4)
    page.get_by_role("link", name="Next channel").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Channel 8")
    page.locator(".crops a").first.click()
    expect(page.get_by_text("TinyNet says")).to_be_visible()
    page.goto(f"{server.address}#/unit?network=0&layer=1&unit=5")
    expect(page.locator(".notice")).to_contain_text("silent")


def test_all_layers(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/layers?network=1")
    expect(page.locator("main tbody tr")).to_have_count(12)
    page.get_by_role("link", name="stem.conv").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("stem.conv")


def test_photo_with_explanations(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/photo?photo=7")
    expect(page.locator(".multiple")).to_have_count(4)
    stage = page.locator(".stage-side .stage")
    expect(stage.locator("canvas")).to_have_count(1)
    page.locator(".multiple", has_text="Occlusion").click()
    expect(page).to_have_url(re.compile("map=2"))
    expect(page.locator(".map-caption")).to_contain_text("Occlusion")
    expect(page.locator(".scale")).to_contain_text("-0.12")
    page.get_by_label("Strength of the map").fill("0")
    expect(stage.locator("canvas")).to_have_css("opacity", "0")
    page.keyboard.press("Escape")
    page.goto(f"{server.address}#/photo?photo=50")
    expect(page.locator(".notice")).to_contain_text("45 photos")
    page.goto(f"{server.address}#/photo?set=1&photo=2")
    expect(page.locator(".notice")).to_contain_text("No explanations")


def test_compare_names_the_best(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/compare")
    expect(page.locator(".best-line strong")).to_have_text("WideNet-50, head")
    expect(page.locator(".chart-row")).to_have_count(6)
    expect(page.locator(".chart .chance")).to_have_count(6)
    page.get_by_label("measured by").select_option("mAP")
    expect(page.locator(".best-line")).to_contain_text("0.68")
    page.get_by_role("link", name="Layer 1 stem.conv: 0.23").click()
    expect(page.get_by_role("heading", name="Class by class")).to_contain_text("TinyNet, stem.conv")
    expect(page.locator("main tbody tr")).to_have_count(5)
    page.get_by_label("Photos of").select_option("0")


def test_classes(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/classes")
    expect(page.locator(".class-tiles li")).to_have_count(len(CLASSES))
    page.get_by_role("link", name="square").click()
    expect(page.get_by_role("heading", name="Kind 1")).to_be_visible()
    expect(page.locator(".crops li")).to_have_count(9)
    expect(page.locator(".crops .tag")).to_have_count(2)
    page.locator(".crops a").first.click()
    expect(page).to_have_url(re.compile(r"#/photo\?.*photo=1(&|$)"))


def test_map_by_pointer_and_keys(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/map?method=umap&photo=7")
    stage = page.locator(".scatter")
    expect(stage).to_have_attribute("data-renderer", "webgl")
    ring = page.locator(".ring.chosen")
    expect(ring).to_be_visible()
    box = ring.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".map-card")).to_contain_text("triangle")
    page.mouse.move(5, 5)
    expect(page.locator(".map-card")).to_be_hidden()
    stage.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcements")).to_contain_text("triangle")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("+")
    expect(page).to_have_url(re.compile(r"view=[\d._-]+"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/search\?.*photo=\d+"))
    expect(page.locator(".results li")).to_have_count(50)


def test_map_layers_classes_and_words(page: Page, server: Served) -> None:
    page.goto(f"{server.address}#/map")
    page.get_by_role("link", name="PCA").click()
    expect(page.get_by_text("keeps 58 % of the variance")).to_be_visible()
    page.locator(".legend button", has_text="square").click()
    expect(page).to_have_url(re.compile(r"classes=0\.2\.3\.4"))
    expect(page.locator('.legend [aria-pressed="false"]')).to_have_count(1)
    page.get_by_text("The map in words").click()
    expect(page.locator(".map-side tbody tr")).to_have_count(len(CLASSES))
    page.get_by_role("heading", level=1).click()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Layer", exact=True)).to_have_value("1")


def test_map_of_many_classes(browser: Any, folder: Path, tmp_path: Path) -> None:
    """Eight classes have colours at a time; the reader chooses which."""
    many = tmp_path / "site"
    shutil.copytree(folder, many)
    start = many / "data" / "site.js"
    address, value = start.read_text().rstrip(");\n").split(", ", 1)
    site = json.loads(value)
    site["sets"][0]["classes"] += [f"rare {k}" for k in range(7)]
    site["sets"][0]["sizes"] += [0, 1, 0, 2, 0, 0, 0]
    start.write_text(f"{address}, {json.dumps(site)});")
    with served(many) as server:
        page = browser.new_page()
        page.goto(f"{server.address}#/map")
        expect(page.locator(".legend button")).to_have_count(12)
        expect(page.locator('.legend [aria-pressed="true"]')).to_have_count(8)
        pressed = '.legend [aria-pressed="true"][data-class="8"]'
        expect(page.locator(pressed)).to_have_count(1)
        page.locator(".legend button", has_text="rare 6").click()
        expect(page.locator('.legend [aria-pressed="true"]')).to_have_count(8)
        expect(page.locator('.legend [data-class="11"]')).to_have_attribute("aria-pressed", "true")
        page.close()


def test_map_moves_between_layers_where_motion_is_welcome(browser: Any, server: Served) -> None:
    page = browser.new_page(reduced_motion="no-preference")
    page.goto(f"{server.address}#/map?photo=7&layer=0")
    ring = page.locator(".ring.chosen")
    expect(ring).to_be_visible()
    page.evaluate(
        """() => {
          globalThis.places = new Set();
          const ring = document.querySelector(".ring.chosen");
          const note = () => places.add(ring.style.transform);
          new MutationObserver(note).observe(ring, { attributes: true });
        }"""
    )
    page.get_by_label("Layer", exact=True).select_option("2")
    page.wait_for_timeout(1200)
    assert page.evaluate("places.size") > 3
    page.close()


def test_map_without_webgl(browser: Any, server: Served) -> None:
    page = browser.new_page()
    watched = Watched(page)
    page.add_init_script(
        """const get = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind === "webgl" ? null : get.call(this, kind, ...rest);
        };"""
    )
    page.goto(f"{server.address}#/map?photo=7")
    expect(page.locator(".scatter")).to_have_attribute("data-renderer", "canvas")
    painted = """() => {
      const canvas = document.querySelector(".scatter canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value) => value > 0);
    }"""
    page.wait_for_function(painted)
    assert watched.problems == []
    page.close()


def test_keyboard_only(page: Page, server: Served) -> None:
    page.goto(server.address)
    before = results(page)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Layer", exact=True)).to_have_value("1")
    page.keyboard.press("]")
    expect(page.get_by_label("Model")).to_have_value("1")
    page.keyboard.press("m")
    expect(page.get_by_label("Distance")).to_have_value("euclidean")
    page.keyboard.press("a")
    expect(page.locator("#advanced")).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator("#advanced")).to_be_hidden()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "grid":
            break
    expect(page.locator(".grid")).to_be_focused()
    page.keyboard.press("ArrowRight")
    active = page.locator(".grid").get_attribute("aria-activedescendant")
    page.keyboard.press("Enter")
    chosen = active.rsplit("-", 1)[1]
    expect(page.locator(".query-picture img")).to_have_attribute(
        "src", re.compile(rf"/{chosen}\.jpg")
    )
    assert results(page) != before
    expect(page.locator("#announcements")).to_contain_text("photos like")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Use single keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#advanced")).to_be_hidden()


SCREENS = [
    "search?photo=4&advanced=1",
    "map",
    "explore",
    "layers",
    "layer?layer=1",
    "unit?layer=1&unit=3",
    "compare",
    "photo?photo=4",
    "classes",
    "class?class=4",
    "about",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_and_every_picture_has_words(
    browser: Any, server: Served, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    watched = Watched(page)
    for screen in SCREENS:
        page.goto(f"{server.address}#/{screen}")
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, screen
        assert page.locator("img:not([alt])").count() == 0, screen
        unnamed = """all => all.filter(one =>
          !one.innerText.trim() && !one.getAttribute("aria-label")
          && ![...one.querySelectorAll("img")].some(image => image.alt)).length"""
        assert page.locator("a, button").evaluate_all(unnamed) == 0, screen
    assert watched.problems == []
    context.close()


def test_opens_from_disk(browser: Any, folder: Path) -> None:
    page = browser.new_page()
    watched = Watched(page)
    page.goto((folder / "index.html").as_uri())
    expect(page.locator(".results li")).to_have_count(50)
    shown = (
        "() => [...document.querySelectorAll('.query-picture img')].every(i => i.naturalWidth > 0)"
    )
    page.wait_for_function(shown)
    for screen in SCREENS:
        page.goto(f"{(folder / 'index.html').as_uri()}#/{screen}")
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        expect(page.locator(".failure")).to_have_count(0)
    assert watched.problems == []
    assert all(url.startswith("file:") for url in watched.requests)
    page.close()


def test_missing_and_damaged_files_are_told(browser: Any, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    shutil.copytree(folder, broken)
    layer = broken / "data" / "sets" / "0" / "networks" / "0" / "layers"
    (layer / "1" / "neighbors-cosine-0.js").unlink()
    half = layer / "0" / "neighbors-cosine-0.js"
    half.write_text(half.read_text()[:200])
    with served(broken) as server:
        page = browser.new_page()
        page.goto(server.address)
        expect(page.locator(".results li")).to_have_count(50)
        page.get_by_label("Layer", exact=True).select_option("1")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(
            "data/sets/0/networks/0/layers/1/neighbors-cosine-0.js is missing"
        )
        page.go_back()
        expect(page.locator(".results li")).to_have_count(50)
        page.goto(f"{server.address}#/search?layer=0")
        expect(alert).to_contain_text("is damaged")
        (broken / "data" / "site.js").unlink()
        page.close()
        page = browser.new_page()
        page.goto(server.address)
        expect(page.get_by_role("alert")).to_contain_text("data/site.js is missing")
        page.close()


def test_first_view_is_light(browser: Any, tmp_path: Path) -> None:
    with served(make_site(tmp_path / "site", 1000, links=True)) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(server.address)
        expect(page.locator(".results li")).to_have_count(50)
        page.wait_for_load_state("networkidle")
        assert sum(server.sent.values()) < 1_000_000
        page.close()


def test_ten_thousand_photos(browser: Any, tmp_path: Path) -> None:
    """The grid makes what is in sight only; a far photo can be reached."""
    with served(make_site(tmp_path / "site", 10_000, links=True)) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        watched = Watched(page)
        page.goto(f"{server.address}#/search?photo=250&order=class")
        expect(page.locator(".chooser [role=status]")).to_have_text("10,000 photos")
        assert page.locator(".cell").count() < 120
        expect(page.locator('.cell[data-photo="250"]')).to_be_visible()
        page.locator(".grid").focus()
        page.keyboard.press("End")
        expect(page.locator('.cell[data-photo="9999"]')).to_be_visible()
        page.goto(f"{server.address}#/map")
        expect(page.locator(".scatter")).to_be_visible()
        assert watched.problems == []
        page.close()


@pytest.fixture
def live(
    browser: Any, folder: Path, tmp_path: Path
) -> Iterator[tuple[Page, Served, Watched, Path]]:
    photo = tmp_path / "mine.jpg"
    save(draw(2, 5, (320, 240)), photo)
    shutil.copytree(folder, tmp_path / "site")
    answers = {"available": True, "max_bytes": 10_000_000, "sets": [0], "networks": [0, 1]}
    write(tmp_path / "site", "live", answers)
    with served(tmp_path / "site") as server:
        page = browser.new_page()
        watched = Watched(page)
        page.goto(f"{server.address}#/own?network=1&layer=1&metric=euclidean")
        yield page, server, watched, photo
        page.close()


def test_your_photo(live: tuple[Page, Served, Watched, Path]) -> None:
    page, server, watched, photo = live
    expect(page.get_by_role("heading", level=1)).to_have_text("What is like your photo?")
    assert server.posted == []  # nothing is sent before a photo was chosen
    server.answer = (
        200,
        {
            "ids": [7, 2, 12],
            "distances": [0.1, 0.2, 0.4],
            "similarity": [95, 90, 80],
            "size": [320, 240],
            "top": [[2, 0.9], [4, 0.05]],
            "maps": [],
            "seconds": 0.123,
        },
    )
    page.locator("#own-file").set_input_files(photo)
    expect(page.locator(".results li")).to_have_count(3)
    expect(page.locator(".top li").first).to_contain_text("triangle")
    path, body = server.posted[0]
    assert path == "/api/search?set=0&network=1&layer=1&metric=euclidean&k=50&data=data"
    assert body == photo.read_bytes()
    page.locator(".results a").first.click()
    expect(page).to_have_url(re.compile(r"#/search\?.*photo=7"))
    assert watched.problems == []


def test_your_photo_refused(live: tuple[Page, Served, Watched, Path]) -> None:
    page, server, _, photo = live
    server.answer = (415, {"error": "This is no <b>photo</b>."})
    page.locator("#own-file").set_input_files(photo)
    expect(page.get_by_role("alert")).to_have_text("This is no <b>photo</b>.")
    page.locator("#own-file").set_input_files(
        {"name": "big.jpg", "mimeType": "image/jpeg", "buffer": b"0" * 10_000_001}
    )
    expect(page.get_by_role("alert")).to_contain_text("10 MB at most")
    assert len(server.posted) == 1
