"""Make examples/report.png, the screenshot of report.html in README.md, with headless Chromium.

    apt-get install chromium
    make score && .venv/bin/python examples/screenshot.py mmclip-out/report.html examples/report.png

The PNG has 64 colours (Pillow's median cut), which keeps it below 150 kB.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1180, 1000
"""Pixels of the browser window: the top of the page, down to the first metrics."""
COLOURS = 64


def main() -> None:
    """Render the page and write the PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("png", type=Path, help="the image to write")
    parser.add_argument("--browser", default="chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        command = [
            arguments.browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={raw}", arguments.page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(raw) as image:
            image.convert("RGB").quantize(COLOURS).save(arguments.png, optimize=True)
    print(f"{arguments.png}: {arguments.png.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
