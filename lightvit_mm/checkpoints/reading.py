"""Reading checkpoint files without running any code in them.

Every file is read with ``weights_only=True``. The few globals in the files of mmengine's Runner and
of the papers' authors are replaced by harmless ones (`unpickling`); all others are refused.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load as load_safetensors

from lightvit_mm.checkpoints.download import CheckpointError, fetch
from lightvit_mm.checkpoints.layout import WRAPPER_KEYS, unwrap
from lightvit_mm.checkpoints.unpickling import ALLOWED_GLOBALS, RefusedError, rebuild
from lightvit_mm.errors import MissingFileError
from lightvit_mm.runtimes.session import suffix_of


@dataclass(frozen=True)
class Checkpoint:
    """The file that a state dict came from, passed to modules in the state dict's metadata."""

    path: str
    state_dict: Mapping[str, Any]


class _Metadata(OrderedDict):
    """State-dict metadata that gives every module, whatever its name, the file being loaded.

    torch and mmengine pass to a submodule only the names under its prefix, so the names of a bare
    classification file in a detector's ``load_from`` would not reach the backbone.
    """

    def __init__(self, entries: Mapping, checkpoint: Checkpoint) -> None:
        super().__init__(entries)
        self.checkpoint = checkpoint

    def get(self, key: str, default: Any = None) -> dict:
        return {**(super().get(key) or {}), 'checkpoint': self.checkpoint}

    def __deepcopy__(self, memo: dict) -> _Metadata:
        # mmengine's EMAHook copies the state dict; the checkpoint never changes, so it is shared.
        return _Metadata(copy.deepcopy(dict(self), memo), self.checkpoint)


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a file that torch or safetensors saved; no code in it is run.

    Args:
        path: a local file. Safetensors may have any name.
        map_location: see torch.load.

    Returns:
        The content of the file. Weights that a training script stored under ``'model'`` are also
        under ``'state_dict'``.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is not a checkpoint, is damaged, or would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = 'is a directory, not a file' if path.is_dir() else 'does not exist'
        raise MissingFileError(f'checkpoint {path} {what}')
    if suffix_of(path):
        raise CheckpointError(
            f'{path} is an exported model, which tools/test.py and tools/predict.py run; expected '
            'the checkpoint that it was exported from'
        )
    if _is_safetensors(path):
        content: Any = _read_safetensors(path, map_location)
    else:
        _check_sums(path)
        content = _read_torch(path, map_location)
    return _with_source(content, str(path))


def find_damage(path: str | Path) -> str | None:
    """Compare every part of a file with its checksum, which torch writes but does not read.

    Returns:
        What is wrong with a part, or why the file is not the zip archive that torch saves; None if
        it is whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            # A few bytes can expand to more than the memory holds; torch compresses nothing.
            compressed = [part for part in parts if part.compress_type != zipfile.ZIP_STORED]
            if compressed:
                return f'{compressed[0].filename} is compressed'
            if sum(part.file_size for part in parts) > Path(path).stat().st_size:
                return 'its parts are larger than the file'
            damaged = archive.testzip()
            return damaged and f'{damaged} does not match its checksum'
    except Exception as error:  # a damaged header can raise anything in zipfile
        return f'{type(error).__name__}: {error}'


def _check_sums(path: Path) -> None:
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote no archives, and no checksums
        return
    damage = find_damage(path)
    if damage is not None:
        raise CheckpointError(
            f'{path} is damaged, or not as torch saved it ({damage}). Fetch it again, or use an '
            'earlier checkpoint'
        )


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins like safetensors: eight bytes of length, then JSON."""
    with open(path, 'rb') as file:
        start = file.read(9)
    # A file of this name is never unpickled: its name promises that nothing in it can run.
    return path.suffix == '.safetensors' or start[8:] == b'{'


def _read_safetensors(path: Path, map_location: Any) -> dict[str, torch.Tensor]:
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        # Not load_file, whose tensors stay in the file: if that is cut later, Python is killed.
        tensors = load_safetensors(path.read_bytes())
    except Exception as error:  # it has no common class for what a damaged header raises
        raise CheckpointError(
            f'{path} is not a whole safetensors file ({type(error).__name__}: {error}). '
            'Fetch it again, or, if torch saved it, name it .pth'
        ) from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _read_torch(path: Path, map_location: Any) -> Any:
    try:
        with torch.serialization.safe_globals(ALLOWED_GLOBALS):
            content = torch.load(path, map_location=map_location, weights_only=True)
        return rebuild(content)
    except Exception as error:
        # A damaged byte can raise anything in torch's unpickler.
        asked = re.search(r'GLOBAL (\S+)', str(error))
        if asked or isinstance(error, RefusedError):
            why = f'loading it would call {asked[1]}' if asked else str(error)
            raise CheckpointError(
                f'{path} was refused: {why}, which weights never need. None of it was run. If '
                'you trust its origin, save its tensors again as {"state_dict": ...} or as '
                '.safetensors in a separate environment'
            ) from error
        reason = str(error).split('WeightsUnpickler error: ')[-1].strip().split('\n')[0]
        raise CheckpointError(
            f'{path} is not a checkpoint that torch can read ({type(error).__name__}: {reason}). '
            'An interrupted download, or a web page saved under this name? Fetch it again'
        ) from error


def _with_source(content: Any, source: str) -> dict[str, Any]:
    """Add the source to the metadata of the weights in ``content``."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{source} holds a {type(content).__name__}; expected a dict of tensors, or one with '
            'the weights under "state_dict" or "model"'
        )
    meta = content.get('meta')
    if isinstance(meta, Mapping) and 'config' in meta:
        # Python source, which mmengine would run on resuming, to read the former number of GPUs.
        content = {**content, 'meta': {key: meta[key] for key in meta if key != 'config'}}
    found = unwrap(content)
    strangers = [key for key in found if not isinstance(key, str) or key in WRAPPER_KEYS]
    if strangers:
        key = strangers[0]
        raise CheckpointError(
            f'{source} has {key!r} ({type(found[key]).__name__}) among its weights; expected names '
            'of tensors'
        )
    weights = OrderedDict(found)
    weights._metadata = _Metadata(  # type: ignore[attr-defined]
        _versions(found), Checkpoint(source, weights)
    )
    return weights if found is content else {**content, 'state_dict': weights}


def _versions(weights: Mapping) -> dict[str, dict[str, int]]:
    """The module versions in a state dict's metadata; anything else in it is dropped."""
    metadata = getattr(weights, '_metadata', None)
    entries = metadata.items() if isinstance(metadata, Mapping) else ()
    return {
        name: {'version': entry['version']}
        for name, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get('version'), int)
    }


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """`read_checkpoint` for mmengine, which logs the end of this function's name."""
    return read_checkpoint(filename, map_location)


def load_from_url(address: str, map_location: Any = None) -> dict[str, Any]:
    """`read_checkpoint` of a download, which stays in torch's hub cache.

    Raises:
        CheckpointError: it is not an https address, cannot be fetched, or cannot be read.
    """
    return read_checkpoint(fetch(address), map_location)


def register_loaders() -> None:
    """Make mmengine read local files and downloads with the functions of this module.

    This covers ``init_cfg``, ``load_from``, ``--resume`` and mmdet's and mmseg's ``init_model``.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), load_from_url, force=True)
