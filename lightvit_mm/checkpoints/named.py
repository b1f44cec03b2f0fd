"""Checkpoints by name (``torchvision://``, ``open-mmlab://``, ``mmcls://``), read safely.

mmengine fetches them through torch.hub, which lets pickles run code. Here only its tables of names
are used; the files are fetched and read like all others.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from lightvit_mm.checkpoints.download import CheckpointError
from lightvit_mm.checkpoints.reading import load_from_url, read_checkpoint

# Stores whose clients are not public. Whether mmengine lets their files run code depends on the
# version of torch.
CLOSED_STORES = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


def _address(filename: str, known: Mapping[str, str]) -> str:
    scheme, _, name = filename.partition('://')
    if name not in known:
        near = difflib.get_close_matches(name, known) or sorted(known)[:5]
        raise CheckpointError(
            f'{filename}: mmengine knows no such name; {scheme}:// has {len(known)}, among them '
            + ', '.join(near)
        )
    return known[name]


def load_from_torchvision(filename: str, map_location: Any = None) -> dict[str, Any]:
    """``torchvision://<model>`` and its old name ``modelzoo://<model>``."""
    try:
        known = mmengine_checkpoint.get_torchvision_models()
    except ImportError as error:
        raise CheckpointError(
            f'{filename}: only torchvision knows its address ({error})'
        ) from error
    return load_from_url(_address(filename, known), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict[str, Any]:
    """``open-mmlab://<model>`` or ``openmmlab://<model>``; a user's table can name local files."""
    scheme, _, name = filename.partition('://')
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    address = _address(f'{scheme}://{name}', mmengine_checkpoint.get_external_models())
    if '://' in address:
        return load_from_url(address, map_location)
    return read_checkpoint(Path(mmengine_checkpoint._get_mmengine_home()) / address, map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
    """``mmcls://<model>``: the backbone of a classifier, without the prefix ``backbone.``."""
    address = _address(filename, mmengine_checkpoint.get_mmcls_models())
    return mmengine_checkpoint._process_mmcls_checkpoint(load_from_url(address, map_location))


def refuse_closed_store(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse the file, and name the alternative.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(f'{filename}: fetch it yourself, and give the path of the file')


def register_names() -> None:
    """Replace mmengine's own loaders."""
    loaders = {
        ('torchvision://', 'modelzoo://'): load_from_torchvision,
        ('open-mmlab://', 'openmmlab://'): load_from_openmmlab,
        ('mmcls://',): load_from_mmcls,
        CLOSED_STORES: refuse_closed_store,
    }
    for schemes, loader in loaders.items():
        CheckpointLoader.register_scheme(schemes, loader, force=True)
