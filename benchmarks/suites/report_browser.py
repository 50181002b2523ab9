"""A report opened in headless Chromium: console, requests, plots, keyboard, accessibility, screenshots.

    python -m edgekd.benchmarks.suites.report_browser report.html --out shots

Needs Chromium with its driver and the Python package selenium. The accessibility rules are those of axe-core
(Deque, MPL-2.0), which is not part of this project: ``--axe`` names its ``axe.min.js``, else ``npm pack``
fetches it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

AXE_PACKAGE = "axe-core@4.14.1"
VIEWS = {
    "light": ("light", 1200, 900, False),
    "dark": ("dark", 1200, 900, False),
    "phone": ("light", 390, 844, True),
    "phone-dark": ("dark", 390, 844, True),
}
SERIOUS = ("serious", "critical")
_OWN_SCHEMES = ("file:", "data:", "chrome:", "about:")


def find_browser() -> tuple[str, str] | None:
    """Return the paths of Chromium and its driver, None where one is missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def inspect_report(page: Path, axe: Path | None, shots: Path | None = None) -> dict[str, Any]:
    """Open a report in every view and return what was found.

    Args:
        page: the HTML file.
        axe: ``axe.min.js``; None leaves accessibility out.
        shots: folder for one picture a view; None takes none.

    Returns:
        ``console`` (messages), ``requests`` (URLs that are not the page's own), and by view: ``charts`` shown
        and their least width, ``overflow_px`` (how far the page is wider than its window), ``faults`` of
        axe-core by impact; ``flips``, what the arrow keys show of the first picture.
    """
    with _open_driver() as driver:
        found: dict[str, Any] = {"views": {}, "console": [], "requests": []}
        for name, view in VIEWS.items():
            _set_view(driver, *view)
            driver.get(page.resolve().as_uri())
            found["views"][name] = {
                **_measure_charts(driver, view[1]),
                "faults": None if axe is None else _run_axe(driver, axe),
            }
            if shots is not None:
                _take_picture(driver, shots / f"report-{name}.png")
        found["flips"] = _flip_by_keyboard(driver)
        found["console"] = [entry["message"] for entry in driver.get_log("browser")]
        found["requests"] = _list_requests(driver)
        found["browser"] = driver.capabilities["browserVersion"]
        return found


def fetch_axe(folder: Path) -> Path:
    """Fetch axe-core by npm into a folder and return its script."""
    command = ["npm", "pack", "--silent", AXE_PACKAGE]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    archive = next(folder.glob("axe-core-*.tgz"))
    with tarfile.open(archive) as files:
        member = files.extractfile("package/axe.min.js")
        if member is None:
            raise FileNotFoundError("package/axe.min.js")
        (folder / "axe.min.js").write_bytes(member.read())
    return folder / "axe.min.js"


def list_faults(found: dict[str, Any]) -> list[str]:
    """Return what a report must not have, in words."""
    faults = [f"console: {text}" for text in found["console"]]
    faults += [f"request: {url}" for url in found["requests"]]
    for name, view in found["views"].items():
        if view["charts"] == 0 or view["least_width_px"] < 100:
            faults.append(f"{name}: {view['charts']} charts, the narrowest {view['least_width_px']} px")
        if view["overflow_px"] > 0:
            faults.append(f"{name}: {view['overflow_px']} px wider than the window")
        for fault in view["faults"] or ():
            if fault["impact"] in SERIOUS:
                faults.append(f"{name}: {fault['impact']} {fault['id']}: {', '.join(fault['where'])}")
    if len(set(found["flips"])) < len(found["flips"]) or len(found["flips"]) < 2:
        faults.append(f"the arrow keys show {found['flips']}")
    return faults


@contextlib.contextmanager
def _open_driver() -> Iterator[Any]:
    from selenium import webdriver

    paths = find_browser()
    if paths is None:
        raise FileNotFoundError("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    try:
        yield driver
    finally:
        driver.quit()


def _set_view(driver: Any, scheme: str, width: int, height: int, mobile: bool) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})


def _measure_charts(driver: Any, width: int) -> dict[str, Any]:
    # A chart counts where it is shown and something in it has an extent.
    return driver.execute_script(
        """
        const charts = [...document.querySelectorAll('svg.chart')]
            .filter(svg => getComputedStyle(svg).display !== 'none')
            .filter(svg => [...svg.querySelectorAll('rect, circle, polyline')]
                .some(mark => mark.getBoundingClientRect().width > 0));
        return {
            charts: charts.length,
            least_width_px: Math.round(Math.min(...charts.map(svg => svg.getBoundingClientRect().width))),
            overflow_px: document.documentElement.scrollWidth - arguments[0],
        };
        """,
        width,
    )


def _run_axe(driver: Any, axe: Path) -> list[dict[str, Any]]:
    # The page's policy forbids scripts; the driver's own run outside of it.
    driver.execute_script(axe.read_text())
    result = driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run().then(done, e => done({error: String(e)}));"
    )
    return [
        {
            "id": one["id"],
            "impact": one["impact"],
            "help": one["help"],
            "where": [str(node["target"][0]) for node in one["nodes"]][:5],
        }
        for one in result["violations"]
    ]


def _flip_by_keyboard(driver: Any) -> list[str]:
    """Focus the first picture's views and return what each arrow key shows, by alternative text."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    groups = driver.find_elements(By.CSS_SELECTOR, ".flip")
    if not groups:
        return []
    views = groups[0].find_elements(By.CSS_SELECTOR, "input")
    driver.execute_script("arguments[0].focus()", views[0])
    shown: list[str] = []
    for _ in views:
        shown.append(
            driver.execute_script(
                "return [...arguments[0].querySelectorAll('.layer')]"
                ".filter(img => getComputedStyle(img).visibility === 'visible')"
                ".map(img => img.alt).join(' + ')",
                groups[0],
            )
        )
        driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    return shown


def _list_requests(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(_OWN_SCHEMES)]


def _take_picture(driver: Any, path: Path) -> None:
    options = {"captureBeyondViewport": True, "format": "png"}
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    data = driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(data))


def main(
    page: Path,
    out: Annotated[Path | None, typer.Option(help="Folder for screenshots and browser.json.")] = None,
    axe: Annotated[Path | None, typer.Option(help="axe.min.js; fetched by npm where absent.")] = None,
) -> None:
    """Inspect a report and exit 1 where it has a fault."""
    with tempfile.TemporaryDirectory() as folder:
        found = inspect_report(page, axe or fetch_axe(Path(folder)), out)
    found["axe"] = AXE_PACKAGE
    found["faults"] = list_faults(found)
    text = json.dumps(found, indent=2) + "\n"
    typer.echo(text)
    if out is not None:
        (out / "browser.json").write_text(text)
    raise typer.Exit(int(bool(found["faults"])))


if __name__ == "__main__":
    typer.run(main)
