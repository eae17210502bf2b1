"""The pages in a real browser: nothing to complain of, no other host asked, nothing wider than a phone or a sheet of paper."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adabert_core.comparison import compare
from adabert_core.report_html import write_html
from tests.integration.browser import Browser, chromium
from tests.integration.conftest import lacking
from tests.test_comparison import folders, report
from tests.test_report_html import make_report

SIZES = pytest.mark.parametrize(
    ("width", "dark", "media"), [(1280, False, ""), (1280, True, ""), (390, False, ""), (390, True, ""), (794, False, "print")]
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not executable:
        lacking("no Chromium: install Debian's package chromium, or name one with CHROMIUM=...")
    with chromium(executable) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a usual run, with hostile texts in it, and the comparison of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    trials = [
        {"depth": d, "cell": f"0>2 conv_3 1>2 dil_conv_{d}", "steps": s, "log_loss": 1 / d, "products": 9 * d, "objective": 1 / d}
        for d, s in ((3, 250), (5, 250), (7, 250), (7, 600))
    ]
    decision = {"alias": "champion", "version": "2", "champion_before": None, "reasons": ["fine"], "export": ""}
    write_html({**make_report(), "trials": trials}, folder, decision)
    compare(["seed=0 <b>", "seed=1"], folders(folder, report(0.85, 1.0), report(0.88, 2.0)), folder / "sweep")
    return {"report": folder / "report.html", "comparison": folder / "sweep" / "comparison.html"}


@SIZES
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_page_is_quiet_alone_and_no_wider_than_its_window(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool, media: str
) -> None:
    with browser.page(width, dark, media) as page:
        page.visit(pages[name].as_uri())
        assert page.complaints == []
        assert page.hosts == {""}  # files have none
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.value("document.images.length + document.scripts.length") == 0
        assert page.value("[...document.querySelectorAll('svg')].every(part => part.getBoundingClientRect().width > 150)")
        assert page.value("document.querySelector('h1').getBoundingClientRect().top") < 150


def test_dark_page_is_dark(browser: Browser, pages: dict[str, Path]) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    with browser.page(390, dark=True) as page:
        page.visit(pages["report"].as_uri())
        assert page.value(brightness) < 200
        assert (
            page.value("getComputedStyle(document.querySelector('.plot text')).fill") == "rgb(155, 167, 182)"
        )  # muted, in the dark scheme


def test_browser_hears_what_a_page_does_wrong(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>console.error('no'); fetch('http://127.0.0.1:1/x'); throw Error('oh')</script>")
    with browser.page(390) as page:
        page.visit((tmp_path / "bad.html").as_uri())
        assert "no" in page.complaints
        assert any("Uncaught" in complaint for complaint in page.complaints)
        assert "127.0.0.1:1" in page.hosts
