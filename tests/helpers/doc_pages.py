"""What the pages of the docs tell their readers to type."""

import re
import shlex
from pathlib import Path

from helpers.repository import REPOSITORY

PAGES = [REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md'))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation of a list around them."""
    found = re.findall(rf'^( *)```{language}\n(.*?)^ *```', page.read_text(), re.M | re.S)
    return [re.sub(rf'^{indent}', '', text, flags=re.M) for indent, text in found]


def commands(page: Path) -> list[list[str]]:
    """The words of every command of the page's bash blocks, without comments."""
    lines = '\n'.join(blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
