"""The report in a real browser: Debian's Chromium, without a network."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from launch.report import Command, write
from tests.apt import CHROMIUM, absence
from tests.launch.reports.made_runs import HOSTILE, rewrite

REQUIRE = "LEWEL_REQUIRE_BROWSER"
"""In the environment, it turns skipped tests into failed ones."""

SCREENSHOTS = "LEWEL_SCREENSHOTS"
"""In the environment, it names a folder in which pictures of the page are kept."""

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SIZES = {"desktop": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


@pytest.fixture(scope="session")  # asked before any run is made
def browser() -> Iterator[Any]:
    reason = absence(CHROMIUM)
    if reason and os.environ.get(REQUIRE):
        pytest.fail(f"{reason}, and {REQUIRE} is set", pytrace=False)
    if reason:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "out"
    output = Path(shutil.copytree(made, folder, symlinks=True))
    scores = json.loads((output / "runs/transfer/seed0/inference/per_class.json").read_text())
    scores["box_AP"][HOSTILE] = 12.5
    (output / "runs/transfer/seed0/inference/per_class.json").write_text(json.dumps(scores))
    rewrite(output / "runs/transfer/seed1/metrics.json", overrides=HOSTILE)
    return write(Command(output_dir=output))


def opened(browser: Any, report: Path, size: str) -> tuple[Any, list[str]]:
    """The page, and what went wrong in it: console messages, errors, requests."""
    width, height, scheme = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
    page.goto(report.as_uri())
    return page, wrong


def table(page: Any, name: str) -> tuple[list[str], list[list[str]]]:
    rows = (
        f"[...document.querySelectorAll('#{name} tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    head, *body = page.evaluate(rows)
    return head, body


def test_the_page_in_a_browser(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report, "desktop")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = page.evaluate(
        "Promise.all([...document.images].map(async i => (await i.decode(), i.naturalWidth)))"
    )
    assert len(sizes) == 3 + 4 * 3 + 4 * 2 + 4 * 2 and all(size > 100 for size in sizes)
    assert page.evaluate("document.querySelectorAll('svg path').length") > 100
    assert page.evaluate("[...document.querySelectorAll('svg')].every(s => s.clientWidth > 200)")
    assert wrong == []

    csv = pd.read_csv(report.parent / "transfer.csv", dtype=str, keep_default_na=False)
    head, body = table(page, "transfer-runs")
    shown = pd.DataFrame(body, columns=head)
    assert len(shown) == len(csv) == 3
    for name in ("method", "seed", "box_AP", "box_AP50", "mask_AP", "mask_APs", "wall_time_s"):
        assert list(shown[name]) == list(csv[name])
    head, body = table(page, "transfer-summary")
    assert head.index("box_AP") < head.index("mask_AP") and len(body) == 3
    ious = json.loads((report.parent.parent / "runs/segmentation/fcn/metrics.json").read_text())
    _, body = table(page, "segmentation-classes-1")
    expected = {k[4:]: "" if v is None else f"{v:.1f}" for k, v in ious.items() if k[:4] == "IoU-"}
    assert dict(body) == expected
    classes = dict((row[0], row[1]) for row in table(page, "transfer-classes-1")[1])
    assert classes[HOSTILE] == "12.5"
    assert report.stat().st_size < 5e6 * 6 / 20  # six runs of the twenty that have 5 MB


def test_tables_are_sorted_by_a_click(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report, "desktop")
    head, _ = table(page, "transfer-runs")
    column = head.index("box_AP")

    def values() -> list[float]:
        return [float(row[column]) for row in table(page, "transfer-runs")[1]]

    button = page.locator("#transfer-runs th button").nth(column)
    button.click()
    first = values()
    button.click()
    assert first == sorted(first, reverse=True) and values() == sorted(first) and len(first) == 3
    assert page.locator("#transfer-runs th").nth(column).get_attribute("aria-sort") == "ascending"
    page.locator("#transfer-runs th button").nth(head.index("method")).click()
    assert wrong == []


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_page(browser: Any, report: Path, size: str) -> None:
    """On a phone wide tables scroll in their own place; in the dark words are light."""
    page, wrong = opened(browser, report, size)
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        page.add_style_tag(content="article { content-visibility: visible !important }")
        page.screenshot(path=Path(folder) / f"report-{size}.png", full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    light = sum(map(int, ink.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
    assert light == (size == "dark")
    assert wrong == []
