"""The configs and tools that come with the package, in ``lightvit_mm/.mim`` as in OpenMMLab's.

In a checkout, these are links to its ``configs/`` and ``tools/``; a wheel has copies.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from lightvit_mm.errors import MissingFileError

CONFIGS = Path(__file__).parent / '.mim/configs'
TOOLS = Path(__file__).parent / '.mim/tools'
SCOPE = 'lightvit_mm::'  # what mmengine calls these configs, see `register_scope`


def config_names() -> list[str]:
    """The configs of the package, e.g. ``retinanet_edgevit_s_coco``, in alphabetical order."""
    return sorted(file.stem for file in CONFIGS.glob('*.py'))


def find_config(name: str) -> str:
    """The path of a config file.

    Args:
        name: an existing file, or the name of a config of the package: with or without
            ``lightvit_mm::`` or ``configs/`` at its beginning and ``.py`` at its end.

    Raises:
        MissingFileError: there is neither; the message suggests similar names.
    """
    if os.path.isfile(name):
        return name
    bare = name.removeprefix(SCOPE).removeprefix('configs/').removesuffix('.py')
    if bare and os.path.isfile(CONFIGS / f'{bare}.py'):
        return str(CONFIGS / f'{bare}.py')
    known = {stem: stem for stem in config_names()}
    known |= {file.stem: str(file) for file in Path(name).parent.glob('*.py')}
    near = difflib.get_close_matches(Path(bare).name, known, cutoff=0.5)
    raise MissingFileError(
        f'config {name} does not exist; '
        + (f'did you mean {", ".join(known[stem] for stem in near)}? ' if near else '')
        + 'lightvit-mm list shows the configs that come with the package'
    )
