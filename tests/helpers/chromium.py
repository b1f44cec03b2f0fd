"""A page in headless Chromium, at the widths of a desk and of a phone."""

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

WIDTHS = (1280, 390)
FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--allow-file-access-from-files', '--enable-logging=stderr', '--v=0', '--hide-scrollbars',
    '--dump-dom',
)  # fmt: skip
# Chromium opens no window narrower than 500 pixels, but a frame can be.
MEASURE = """
<!DOCTYPE html>
{frames}
<pre id="measured"></pre>
<script>
addEventListener('load', () => {{
  document.getElementById('measured').textContent = [...document.querySelectorAll('iframe')]
    .map(frame => frame.contentDocument)
    .map(page => [
      page.documentElement.clientWidth,
      page.documentElement.scrollWidth,
      page.images.length,
      [...page.images].filter(image => image.complete && image.naturalWidth).length,
      [...page.images].filter(image => image.alt).length,
    ].join(' '))
    .join('\\n');
}});
</script>
"""


@dataclass
class Shown:
    """A page as it was laid out.

    Attributes:
        width, content_width: of the window and of what is in it, in pixels.
        images, loaded, described: how many there are, could be shown, and have a text instead.
    """

    width: int
    content_width: int
    images: int
    loaded: int
    described: int


def show(page: Path, folder: Path) -> tuple[list[Shown], list[str]]:
    """Open a page at each of `WIDTHS`.

    Args:
        page: the file.
        folder: for the browser's files.

    Returns:
        The layouts, and the lines of the console.
    """
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('no chromium on the path')
    frames = ''.join(
        f'<iframe src="{page.as_uri()}" style="border:0;width:{width}px;height:800px"></iframe>'
        for width in WIDTHS
    )
    outer = folder / 'outer.html'
    outer.write_text(MEASURE.format(frames=frames))
    done = subprocess.run(
        [program, *FLAGS, f'--user-data-dir={folder / "profile"}', outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    layouts = [Shown(*map(int, line.split())) for line in html.unescape(found[1]).splitlines()]
    return layouts, [line for line in done.stderr.splitlines() if ':CONSOLE' in line]
