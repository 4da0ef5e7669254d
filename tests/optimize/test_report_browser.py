"""The page in a real browser: silent console, and no sideways scrolling at a desk's or a telephone's width."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_sample import bare_report, layers, sample_report, size_report

from taut.optimize._report import OperatorTime, Recipe, Report, render_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]

# The browser refuses windows narrower than 500 pixels, so the page is laid out inside a frame of the wanted width.
PROBE = """<!DOCTYPE html><html><body style="margin:0">
<iframe style="border:0" width="{width}" height="900" srcdoc="{page}"></iframe>
<p id="result"></p>
<script>
document.querySelector("iframe").onload = event => {{
  const root = event.target.contentDocument.documentElement;
  const wide = [...root.querySelectorAll("body *")].filter(
    element => element.getBoundingClientRect().right > root.clientWidth + 1 && !element.closest("svg"));
  document.getElementById("result").textContent =
    `layout=${{root.clientWidth}} content=${{root.scrollWidth}} wide=${{wide.map(element => element.tagName)}};`;
}};
</script></body></html>"""


def unbroken_names() -> Report:
    """Names without a single place to break a line at, and figures of extreme length."""
    long = "encoder_layer_attention_self_query_projection_" * 6
    return sample_report(
        goal=long,
        candidates=tuple(
            candidate.model_copy(update={"title": long, "name": long, "on_top_of": (long,), "options": {long: long}})
            for candidate in sample_report().candidates
        ),
        layers=tuple(layer.model_copy(update={"path": long, "format": long, "kind": long}) for layer in layers()),
        operators=(OperatorTime(module_path=long, op=long, before_seconds=1e300, after_seconds=1e-300),),
        host={long: long, "markup": "</dd><script>throw 1</script><img src=x onerror='throw 2'>"},
        recipe=Recipe(command=long),
    )


PAGES = {
    "sample": sample_report(),
    "partial": sample_report(status="partial", partial_reason="Interrupted after 83 s."),
    "bare": bare_report(),
    "size": size_report(),
    "unbroken": unbroken_names(),
}


def browse(folder: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("name", PAGES)
def test_console_stays_silent(tmp_path: Path, name: str):
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render_report(PAGES[name]), encoding="utf-8")
    outcome = browse(tmp_path, page, "--window-size=1280,1600", f"--screenshot={picture}")
    # An inline script out of a hostile name would be reported here too, as refused by the page's own policy.
    assert "CONSOLE" not in outcome.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [1280, 800, 400, 320])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways(tmp_path: Path, name: str, width: int):
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(render_report(PAGES[name]))), encoding="utf-8")
    outcome = browse(tmp_path, probe, "--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom")
    found = re.search(r"layout=(\d+) content=(\d+) wide=([\w,]*);", outcome.stdout)
    assert found is not None, "the probe did not run"
    layout, content, wide = int(found[1]), int(found[2]), found[3]
    assert width - 20 <= layout <= width
    assert (content <= layout, wide) == (True, "")
