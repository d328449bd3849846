"""Makes the pictures of the timings, of a build that is recorded for them: `python docs/images/timings.py [-j JOBS]`.

Needs gcc, make, Chromium and the extra `test`.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
CORE = HERE.parent.parent / "csrc"
WIDTH = 1280
QUALITY = 82


def main() -> None:
    """Builds, and writes the pictures beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-j", type=int, default=4, metavar="JOBS", help="the build's slots (default: 4)")
    with tempfile.TemporaryDirectory() as directory:
        page = build(Path(directory, "core"), parser.parse_args().j)
        for scheme, picture in pictures(page):
            HERE.joinpath(f"timings-{scheme}.webp").write_bytes(picture)


def build(folder: Path, jobs: int) -> Path:
    """Builds the core in a new folder, and returns the page of that."""
    shutil.copytree(CORE, folder)
    shutil.copy(HERE / "timings.mk", folder / "Makefile")
    command = [sys.executable, "-m", "jobserver_ffi.cli", "run", f"-j{jobs}", "--timings=timings.html", "--", "make"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "timings.html"


def pictures(page: Path) -> list[tuple[str, bytes]]:
    """The page in each theme, from its top to the end of the timeline, as WebP."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium on PATH: install chromium")
    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.5)
            tab = context.new_page()
            tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-drawn]")
            tab.locator("#keys").evaluate("(keys) => keys.remove()")
            box = tab.locator(".timeline").bounding_box()
            assert box is not None
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 24, "scale": 1}
            shot = context.new_cdp_session(tab).send(
                "Page.captureScreenshot",
                {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True},
            )
            found.append((scheme, base64.b64decode(shot["data"])))
        browser.close()
    return found


if __name__ == "__main__":
    main()
