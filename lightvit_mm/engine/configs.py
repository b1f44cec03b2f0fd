"""Loading a config and adapting it to this machine."""

from __future__ import annotations

import difflib
import importlib.metadata
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log

from lightvit_mm.data.config import retarget_data

__all__ = ['load_config']


def load_config(
    path: str,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config, apply the command line to it, and adapt it to this machine.

    Args:
        path: config file.
        cfg_options: dotted keys and their new values, as parsed from ``--cfg-options``.
        data_root: folder of the data set, in place of the config's.
        work_dir: output folder; by default the config's, else ``work_dirs/<config name>``.
        launcher: one of `lightvit_mm.engine.launching.LAUNCHERS`.

    Raises:
        FileNotFoundError: there is no such config; the message suggests similar names.
    """
    if not Path(path).is_file():
        near = difflib.get_close_matches(
            Path(path).name, [file.name for file in Path('configs').glob('*.py')], cutoff=0.5
        )
        hint = f'; did you mean {", ".join(f"configs/{name}" for name in near)}?' if near else ''
        raise FileNotFoundError(f'config {path} does not exist{hint}')
    with suppress(importlib.metadata.PackageNotFoundError):
        # onedl-mmengine 0.10.12 looks for mmseg's configs under the original package name only.
        MODULE2PACKAGE['mmseg'] = importlib.metadata.distribution('onedl-mmsegmentation').name
    config = Config.fromfile(path)
    config.merge_from_dict(cfg_options or {})
    if data_root is not None:
        retarget_data(config, data_root)
    if work_dir is not None or config.get('work_dir') is None:
        config.work_dir = work_dir or str(Path('work_dirs') / Path(path).stem)
    config.launcher = launcher
    if not torch.cuda.is_available():
        _adapt_to_cpu(config)
    return config


def _adapt_to_cpu(config: Config) -> None:
    """Replace SyncBN and the nccl backend, which need CUDA."""
    replaced = _replace_sync_bn(config.model)
    config.env_cfg.dist_cfg.backend = 'gloo'
    if config.launcher != 'none':
        if replaced and os.environ.get('RANK', '0') == '0':
            print_log(
                'SyncBN needs CUDA: using BN, so that each process normalises over its own images',
                level=logging.WARNING,
            )
        # mmengine's default, without the CUDA device numbers.
        config.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'device_ids': None,
            'broadcast_buffers': False,
            'find_unused_parameters': config.get('find_unused_parameters', False),
        }


def _replace_sync_bn(value: Any) -> bool:
    """Replace every SyncBN in a config with BN; return whether there was one."""
    found, children = False, value
    if isinstance(value, dict):
        found = value.get('type') == 'SyncBN'
        if found:
            value['type'] = 'BN'
        children = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    for child in children:
        found = _replace_sync_bn(child) or found
    return found
