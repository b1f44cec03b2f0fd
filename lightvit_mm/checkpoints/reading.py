"""Reading checkpoint files without running code that they might carry.

Every file is read with ``weights_only=True``. The few harmless globals that mmengine's Runner and
the authors of the papers put into theirs are allowed by name; anything else is refused.
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
    """The file that a state dict came from, handed to modules with the state dict's metadata."""

    path: str
    state_dict: Mapping[str, Any]


class _Metadata(OrderedDict):
    """State-dict metadata that tells every module, whatever its name, the file it loads from.

    torch and mmengine filter a state dict by name on the way down to a submodule; a backbone that
    is given a bare classification file through a detector's ``load_from`` would see nothing of it.
    """

    def __init__(self, entries: Mapping, checkpoint: Checkpoint) -> None:
        super().__init__(entries)
        self.checkpoint = checkpoint

    def get(self, key: str, default: Any = None) -> dict:
        return {**(super().get(key) or {}), 'checkpoint': self.checkpoint}

    def __deepcopy__(self, memo: dict) -> _Metadata:
        # mmengine's EMAHook loads a copy of the state dict; the file behind it is read only.
        return _Metadata(copy.deepcopy(dict(self), memo), self.checkpoint)


def _history_getattr(owner: object, name: str) -> Callable:
    """What ``builtins.getattr`` may do in a checkpoint: name a statistic of HistoryBuffer."""
    if owner is HistoryBuffer and name in HISTORY_STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')


def _empty_bytes() -> bytes:
    """What ``bytes`` may do: old pickles spell ``b''`` as a call without arguments."""
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
        # Files name numpy's private module by its old or its new name.
        *((function, f'numpy.core.{name}') for function, name in numpy_core),
        *((function, f'numpy._core.{name}') for function, name in numpy_core),
    ]


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a ``.safetensors`` file or one that torch saved; no code in it is run.

    Args:
        path: a local file.
        map_location: as torch.load takes it.

    Returns:
        What the file holds. Weights that a training script keeps under ``'model'`` are also
        under ``'state_dict'``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a checkpoint, is damaged, or asks for code to be run.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = 'is a directory, not a file' if path.is_dir() else 'does not exist'
        raise MissingFileError(f'checkpoint {path} {what}')
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
        # torch's reader of pickles raises whatever a damaged byte happens to lead to.
        asked = re.search(r'(?:GLOBAL|getattr of) (\S+)', str(error))
        if asked:
            raise CheckpointError(
                f'{source} was refused: loading it would call {asked[1]}, which weights never '
                'need. None of it was run. If you trust its origin, save its tensors again as '
                '{"state_dict": ...} or as .safetensors in an environment of its own'
            ) from error
        reason = str(error).split('WeightsUnpickler error: ')[-1].strip().split('\n')[0]
        raise CheckpointError(
            f'{source} is not a checkpoint that torch can read '
            f'({type(error).__name__}: {reason}). An interrupted download, or a web page saved '
            'under this name? Fetch it again'
        ) from error


def _with_source(content: Any, source: str) -> dict[str, Any]:
    """``content`` whose weights know the file that they came from."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'{source} holds a {type(content).__name__}; expected a dict of tensors, or one with '
            'the weights under "state_dict" or "model"'
        )
    meta = content.get('meta')
    if isinstance(meta, Mapping) and 'config' in meta:
        # Python source, which mmengine's resume would run to count the GPUs of another machine.
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
    """What torch keeps with a state dict, without whatever else a file has in its place."""
    metadata = getattr(weights, '_metadata', None)
    entries = metadata.items() if isinstance(metadata, Mapping) else ()
    return {
        name: {'version': entry['version']}
        for name, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get('version'), int)
    }


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """`read_checkpoint`, under a name of which mmengine's log shows the end."""
    return read_checkpoint(filename, map_location)


def load_from_url(address: str, map_location: Any = None) -> dict[str, Any]:
    """`read_checkpoint` of a download, which stays in torch's hub cache.

    Raises:
        CheckpointError: it is not an https address, cannot be fetched, or cannot be read.
    """
    return read_checkpoint(fetch(address), map_location)


def register_loaders() -> None:
    """Make mmengine read local files and downloads by the functions of this module.

    It covers ``init_cfg``, ``load_from``, ``--resume`` and mmdet's and mmseg's ``init_model``.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), load_from_url, force=True)
