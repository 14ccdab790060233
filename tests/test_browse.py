"""The page of `simsiam browse` in a real headless Chromium: search, paging, maps, phones and the dark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import show
from tests.served import Served, serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("browse")) as made:
        yield made


def _open(browser: Any, served: Served, view: str = "", *, width: int = 1100, scheme: str = "light") -> None:
    show(browser, served.server.address, width=width, scheme=scheme)
    if view:
        browser.get(served.server.address.partition("?")[0] + "#" + view)


def _wait(browser: Any, script: str) -> Any:
    """The first true value of a script, within fifteen seconds."""
    for _ in range(150):
        value = browser.execute_script(f"return {script}")
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(script)


TILES = "[...document.querySelectorAll('main section:not([hidden]) .tile')]"
LOADED = f"({TILES}.length && {TILES}.filter((one) => one.querySelector('img').naturalWidth > 0).length)"


def test_the_key_leaves_the_address_and_nothing_goes_out(browser: Any, served: Served) -> None:
    _open(browser, served)
    _wait(browser, LOADED)
    assert served.server.key not in browser.current_url
    assert browser.get_log("browser") == []
    names = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert names
    assert [name for name in names if not name.startswith(browser.current_url.partition("#")[0])] == []
    assert browser.title == "photos – simsiam browse", "a file's name runs no script"


def test_paging_and_the_filter_in_the_page(browser: Any, served: Served) -> None:
    from selenium.webdriver.common.by import By

    _open(browser, served)
    assert _wait(browser, f"{TILES}.length") == 120
    browser.find_element(By.ID, "later").click()
    assert _wait(browser, f"{TILES}.length === 32 && location.hash") == "#all/2/"
    field = browser.find_element(By.ID, "text")
    field.send_keys("copy")
    _wait(browser, f"{TILES}.length === 1")
    assert "1 of 152" in browser.find_element(By.ID, "count").text
    browser.back()
    _wait(browser, f"{TILES}.length === 32")


def test_a_click_shows_the_neighbours_and_back_goes_back(browser: Any, served: Served) -> None:
    from selenium.webdriver.common.by import By

    _open(browser, served)
    _wait(browser, LOADED)
    browser.find_elements(By.CSS_SELECTOR, "#all .tile a")[5].click()
    _wait(browser, "location.hash === '#like/5' && document.querySelector('#like .tile')")
    expected = [one["path"] for one in served.json("/api/like/5?k=48")["images"]]
    assert browser.execute_script(f"return {TILES}.map((one) => one.querySelector('img').alt)") == expected
    browser.find_element(By.ID, "more").click()
    _wait(browser, f"{TILES}.length === 96")
    browser.back()
    _wait(browser, "!document.getElementById('all').hidden")


def test_a_picture_of_ones_own(browser: Any, served: Served) -> None:
    from selenium.webdriver.common.by import By

    _open(browser, served)
    browser.find_element(By.ID, "picture").send_keys(str(served.root / "square" / "008.jpg"))
    assert _wait(browser, f"{TILES}.length === 48 && {TILES}[0].querySelector('img').alt") == "square/008.jpg"
    assert _wait(browser, "document.getElementById('query').naturalWidth") == 40
    dropped = """
        const moved = new DataTransfer();
        moved.items.add(new File(["no picture"], "note.txt"));
        dispatchEvent(new DragEvent("drop", {dataTransfer: moved, cancelable: true}));
    """
    browser.execute_script(dropped)
    _wait(browser, "document.getElementById('status').textContent.includes('not an image')")
    assert [one["level"] for one in browser.get_log("browser")] in ([], ["SEVERE"])  # the answer 400 itself


def test_duplicates_and_map_in_the_page(browser: Any, served: Served) -> None:
    _open(browser, served, "duplicates/0.99999")
    _wait(browser, "document.querySelector('#duplicates mark')")
    said = browser.execute_script("return document.getElementById('groups').textContent")
    assert said == "1 group of 2 images; 1 exact copy"
    _open(browser, served, "map/pca")
    _wait(browser, "points.length === 152")
    row = browser.execute_script("""
        const box = canvas.getBoundingClientRect(), [x, y] = place(points[20]);
        canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
        canvas.dispatchEvent(new MouseEvent("click", {clientX: box.left + x, clientY: box.top + y}));
        return points[20][0];
    """)
    assert row == 20
    assert _wait(browser, "location.hash.startsWith('#like/') && location.hash") is not None


@pytest.mark.parametrize("view", ["all", "like/151", "duplicates/0.9", "map/pca"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1100, "dark")])
def test_fits_phones_and_the_dark(browser: Any, served: Served, view: str, width: int, scheme: str) -> None:
    _open(browser, served, view, width=width, scheme=scheme)
    _wait(browser, LOADED if not view.startswith("map") else "points.length > 0")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = (
        "return [...document.querySelectorAll('header *, main *')].filter((one) => "
        f"one.getBoundingClientRect().right > {width} + 1 && !one.closest('.name')).map((one) => one.outerHTML)"
    )
    assert browser.execute_script(wide) == []
    colour = "return getComputedStyle(document.querySelector('{}')).{}"
    background = _levels(browser.execute_script(colour.format("body", "backgroundColor")))
    assert (max(background) < 60) is (scheme == "dark")
    for selector in ("body", ".fine", "nav a", ".tile figcaption"):
        if browser.execute_script(f"return document.querySelector('{selector}') !== null"):
            ink = _levels(browser.execute_script(colour.format(selector, "color")))
            assert _contrast(ink, background) >= 4.5, selector


def _levels(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def _contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(colour: list[int]) -> float:
        linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
