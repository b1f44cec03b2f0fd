"""Loading a config and adapting it to this machine."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log

from lightvit_mm.carried import find_config
from lightvit_mm.data.config import retarget_data
from lightvit_mm.errors import ConfigError, UserError, stack_errors

__all__ = ['load_config']

DICTS = (
    'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg',
    'test_cfg', 'optim_wrapper', 'default_hooks', 'env_cfg', 'visualizer',
)  # fmt: skip


def load_config(
    path: str,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config, apply the command line to it, and adapt it to this machine.

    Args:
        path: config file, or the name of a config of the package, see `find_config`.
        cfg_options: dotted keys and their new values, as parsed from ``--cfg-options``.
        data_root: folder of the data set, in place of the config's.
        work_dir: output folder; by default the config's, else ``work_dirs/<config name>``.
        launcher: one of `lightvit_mm.engine.launching.LAUNCHERS`.

    Raises:
        MissingFileError: there is no such config; the message suggests similar names.
        ConfigError: the config cannot be read, or an option does not fit it.
    """
    path = find_config(path)
    with suppress(importlib.metadata.PackageNotFoundError):
        # onedl-mmengine 0.10.12 looks for mmseg's configs under the original package name only.
        MODULE2PACKAGE['mmseg'] = importlib.metadata.distribution('onedl-mmsegmentation').name
    with _explained(path):
        config = Config.fromfile(path)
        _merge(config, cfg_options or {})
        _check_types(config)
        config.setdefault('default_scope', 'mmengine')
        if data_root is not None:
            retarget_data(config, data_root)
        if work_dir is not None or config.get('work_dir') is None:
            config.work_dir = work_dir or str(Path('work_dirs') / Path(path).stem)
        config.launcher = launcher
        if not torch.cuda.is_available():
            _adapt_to_cpu(config)
        elif launcher != 'none':
            _warn_of_gloo(config)
    return config


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn any error of a config, which is a program, into one that names the file and line."""
    try:
        with stack_errors():
            yield
    except UserError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == '<module>']
        place = f' ({frames[-1].filename}, line {frames[-1].lineno})' if frames else ''
        raise ConfigError(
            f'config {path} cannot be read: {type(error).__name__}: {error}{place}'
        ) from error


def _check_types(config: Config) -> None:
    if not config.get('model'):
        raise ConfigError(f'config {config.filename} has no model')
    for key in DICTS:
        if not isinstance(config.get(key) or {}, dict):
            raise ConfigError(f'config {config.filename}: {key} is {config[key]!r}, not a dict')


def _merge(config: Config, options: dict[str, Any]) -> None:
    try:
        config.merge_from_dict(options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reasons = (_misfit(config, key) for key in options)
        reason = next(filter(None, reasons), f'{", ".join(options)}: {error}')
        raise ConfigError(f'config {config.filename}: cannot set {reason}') from error


def _misfit(config: Config, key: str) -> str | None:
    """Explain why a dotted key cannot be set in a config; None if it can."""
    value: Any = config
    parts = key.split('.')
    for depth, part in enumerate(parts):
        parent = '.'.join(parts[:depth])
        if isinstance(value, list):
            if not part.isdecimal() or int(part) >= len(value):
                return f'{key}: {parent} is a list with the entries 0 to {len(value) - 1}'
            value = value[int(part)]
        elif isinstance(value, dict | Config):
            if part not in value:
                return None
            value = value[part]
        else:
            return f'{key}: {parent} is {value!r}, which has no entries'
    return None


def _warn_of_gloo(config: Config) -> None:
    env: Mapping[str, Any] = config.get('env_cfg') or {}
    gloo = (env.get('dist_cfg') or {}).get('backend') == 'gloo'
    if gloo and os.environ.get('RANK', '0') == '0':
        print_log(
            f'{config.filename} has env_cfg.dist_cfg.backend gloo, as those that a training on a '
            'CPU saves: gradients go through the CPU. For GPUs, nccl is faster',
            level=logging.WARNING,
        )


def _adapt_to_cpu(config: Config) -> None:
    """Replace SyncBN and the nccl backend, which need CUDA."""
    replaced = _replace_sync_bn(config.model)
    _merge(config, {'env_cfg.dist_cfg.backend': 'gloo'})
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
