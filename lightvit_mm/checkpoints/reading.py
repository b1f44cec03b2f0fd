"""Reading checkpoint files without running any code in them.

Every file is read with ``weights_only=True``. The few harmless globals in the files of mmengine's
Runner and of the papers' authors are allowed by name; all others are refused.
"""

from __future__ import annotations

import argparse
import copy
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from lightvit_mm.checkpoints.download import CheckpointError, fetch
from lightvit_mm.checkpoints.layout import WRAPPER_KEYS, unwrap
from lightvit_mm.errors import MissingFileError

HISTORY_STATISTICS = ('current', 'max', 'mean', 'min')


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


def _history_getattr(owner: object, name: str) -> Callable:
    """Stand-in for ``builtins.getattr`` in a checkpoint: statistics of HistoryBuffer only."""
    if owner is HistoryBuffer and name in HISTORY_STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')


def _empty_bytes() -> bytes:
    """Stand-in for ``bytes``: old pickles write ``b''`` as a call without arguments."""
    return b''


def _allowed_globals() -> list:
    numpy_core = [
        (np.zeros(0).__reduce__()[0], 'multiarray._reconstruct'),
        (np.float64(0).__reduce__()[0], 'multiarray.scalar'),
    ]
    return [
        HistoryBuffer,
        argparse.Namespace,
        (_history_getattr, 'builtins.getattr'),
        (_empty_bytes, 'builtins.bytes'),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in '?bBhHiIlLqQefdU'},
        # numpy 2 renamed its private module; files use either name.
        *((function, f'numpy.core.{name}') for function, name in numpy_core),
        *((function, f'numpy._core.{name}') for function, name in numpy_core),
    ]


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a ``.safetensors`` file or one that torch saved; no code in it is run.

    Args:
        path: a local file.
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
    if path.suffix.lower() == '.onnx':
        raise CheckpointError(
            f'{path} is an exported model, which tools/test.py and tools/predict.py run; expected '
            'the checkpoint that it was exported from'
        )
    if path.suffix == '.safetensors':
        content = _read_safetensors(path, map_location)
    else:
        _check_sums(path)
        content = _guarded(
            path, lambda: torch.load(path, map_location=map_location, weights_only=True)
        )
    return _with_source(content, str(path))


def find_damage(path: str | Path) -> str | None:
    """Compare every part of a file with its checksum, which torch writes but does not read.

    Returns:
        The damaged part, or why the file is not the zip archive that torch saves; None if it is
        whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except Exception as error:  # a damaged header can raise anything in zipfile
        return f'{type(error).__name__}: {error}'


def _check_sums(path: Path) -> None:
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote no archives, and no checksums
        return
    damage = find_damage(path)
    if damage is not None:
        raise CheckpointError(
            f'{path} is damaged: a part of it does not match its checksum ({damage}). '
            'Fetch it again, or use an earlier checkpoint'
        )


def _read_safetensors(path: Path, map_location: Any) -> dict[str, torch.Tensor]:
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} is not a whole safetensors file: {error}') from error


def _guarded(source: str | Path, load: Callable[[], Any]) -> Any:
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            return load()
    except Exception as error:
        # A damaged byte can raise anything in torch's unpickler.
        asked = re.search(r'(?:GLOBAL|getattr of) (\S+)', str(error))
        if asked:
            raise CheckpointError(
                f'{source} was refused: loading it would call {asked[1]}, which weights never '
                'need. None of it was run. If you trust its origin, save its tensors again as '
                '{"state_dict": ...} or as .safetensors in a separate environment'
            ) from error
        reason = str(error).split('WeightsUnpickler error: ')[-1].strip().split('\n')[0]
        raise CheckpointError(
            f'{source} is not a checkpoint that torch can read '
            f'({type(error).__name__}: {reason}). An interrupted download, or a web page saved '
            'under this name? Fetch it again'
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
