"""The report page in a real headless Chromium: nothing on the console, phone width, dark mode, the map's controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simsiam.commands.zoo import published_models
from simsiam.report.evaluation_page import write_evaluation_page
from simsiam.report.page import write_page
from simsiam.report.zoo_page import write, zoo_page
from tests.browser import show
from tests.report.evaluations import make_evaluation
from tests.report.runs import make_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(make_run(tmp_path_factory.mktemp("browser") / "run", points=120))


def _background(browser: Any) -> list[int]:
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def _contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(colour: list[int]) -> float:
        linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_nothing_on_the_console_and_nothing_from_the_network(browser: Any, page: Path) -> None:
    show(browser, page.as_uri(), width=1100)
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [one for one in loaded if not one.startswith("data:")] == []
    broken = "return [...document.images].filter((one) => one.complete && one.naturalWidth === 0).length"
    assert browser.execute_script(broken) == 0


@pytest.mark.parametrize("width", [360, 600, 1100])
def test_no_sideways_scrolling(browser: Any, page: Path, width: int) -> None:
    show(browser, page.as_uri(), width=width)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = (
        "return [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > "
        f"{width} + 1 && !one.closest('.scroll')).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert browser.execute_script(wide) == []


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("rate", [0.0008, 0.00003])
def test_no_number_of_a_chart_is_clipped(browser: Any, tmp_path: Path, width: int, rate: float) -> None:
    """Small rates have long numbers, and 20,000 iterations end in one at the right edge."""
    folder = make_evaluation(tmp_path / "voc", "voc")
    log = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        row["step"] = round(row["step"] / 2400 * 20_000)
        if "lr" in row:
            row["lr"] = rate * (1 - row["step"] / 25_000)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    show(browser, write_evaluation_page(folder).as_uri(), width=width)
    numbers = browser.execute_script(
        "return [...document.querySelectorAll('#chart-lr .tick')].map((one) => one.textContent)"
    )
    assert "20000" in numbers
    clipped = (
        "return [...document.querySelectorAll('svg.chart')].flatMap((chart) => {"
        "  const frame = chart.getBoundingClientRect();"
        "  return [...chart.querySelectorAll('text')].filter((one) => {"
        "    const box = one.getBoundingClientRect();"
        "    return box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom;"
        "  }).map((one) => one.textContent);"
        "})"
    )
    assert browser.execute_script(clipped) == []


@pytest.mark.parametrize("width", [360, 1300])
def test_the_zoo_page_fits_its_window(browser: Any, tmp_path: Path, width: int) -> None:
    write(zoo_page(published_models(), []), tmp_path / "zoo.html")
    show(browser, (tmp_path / "zoo.html").as_uri(), width=width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    text = browser.execute_script("return document.querySelector('.missing').innerText")
    assert text == "not measured here"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_colour_scheme_and_contrast(browser: Any, page: Path, scheme: str, dark: bool) -> None:
    show(browser, page.as_uri(), width=1100, scheme=scheme)
    background = _background(browser)
    assert (max(background) < 60) is dark
    for selector in ("body", ".fine", "figcaption", "nav a"):
        colour = browser.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).color")
        ink = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        assert _contrast(ink, background) >= 4.5, selector


def test_print_is_light(browser: Any, page: Path) -> None:
    show(browser, page.as_uri(), width=1100, scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert min(_background(browser)) > 240
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_map_controls(browser: Any, page: Path) -> None:
    show(browser, page.as_uri(), width=1100)
    shown = "(one) => getComputedStyle(one).display !== 'none'"
    thumbs = f"return [...document.querySelectorAll('.thumb')].filter({shown}).length"
    assert browser.execute_script(thumbs) > 20
    browser.execute_script("document.getElementById('show-dots').click()")
    assert browser.execute_script(thumbs) == 0

    colours = "return [...document.querySelectorAll('.point circle')].map((one) => getComputedStyle(one).fill)"
    by_label = browser.execute_script(colours)
    browser.execute_script("document.getElementById('colour-cluster').click()")
    by_cluster = browser.execute_script(colours)
    assert len(set(by_label)) == 10
    assert by_label != by_cluster

    browser.execute_script("document.querySelector('.legend.by-cluster button').click()")
    faded = browser.execute_script("return document.querySelectorAll('.point.faded').length")
    assert 0 < faded < 120
    browser.execute_script("document.querySelector('.legend.by-cluster button').click()")
    assert browser.execute_script("return document.querySelectorAll('.point.faded').length") == 0


def test_hover_shows_values_and_pictures(browser: Any, page: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    show(browser, page.as_uri(), width=1100)
    tip = browser.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    chart = browser.find_element(By.CSS_SELECTOR, "#chart-knn svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(browser).move_to_element(chart).perform()
    assert tip.is_displayed()
    low, high, start, end = (float(number) for number in str(chart.get_attribute("data-x")).split(","))
    middle = low + (440 / 2 - start) / (end - start) * (high - low)  # of a drawing 440 units wide
    assert tip.text.startswith(f"epoch {middle:.0f}\ntrained ")
    point = browser.find_element(By.CSS_SELECTOR, ".point:not(.crowded) image")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(browser).move_to_element(point).perform()
    assert tip.find_elements(By.TAG_NAME, "img")
    assert "cluster" in tip.text
