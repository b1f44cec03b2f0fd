"""``lightvit_mm::NAME.py`` in mmengine: as the base of a config, and in ``mmengine.hub``."""

from __future__ import annotations

import functools
from typing import Any

from mmengine import hub
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from lightvit_mm.carried import SCOPE, find_config
from lightvit_mm.errors import UserError


def register_scope() -> None:
    """Make mmengine find the configs of this package by their names.

    mmengine looks up names with ``::`` in a fixed list of packages, only where they have a folder
    for each algorithm, and through ``pkg_resources``, which finds neither an editable install nor a
    checkout (0.10.7). Names of other packages still go that way.
    """
    base_path, get_config, get_model = Config._get_cfg_path, hub.get_config, hub.get_model

    @functools.wraps(base_path)
    def our_base_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not cfg_path.startswith(SCOPE):
            return base_path(cfg_path, filename)
        # No scope: it would say where the registries find the modules, which are mmdet's or mmseg's
        # as well as ours. Each of our configs has its default_scope.
        return find_config(cfg_path), None

    @functools.wraps(get_config)
    def our_config(cfg_path: str, pretrained: bool = False) -> Config:
        if not cfg_path.startswith(SCOPE):
            return get_config(cfg_path, pretrained)
        if pretrained:
            raise UserError(
                f'{cfg_path}, pretrained=True: no weights trained with this config have been '
                'released. Without it, init_weights() of the model loads those of the backbone'
            )
        return Config.fromfile(find_config(cfg_path))

    @functools.wraps(get_model)
    def our_model(cfg_path: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if not cfg_path.startswith(SCOPE):
            return get_model(cfg_path, pretrained, **arguments)
        config = our_config(cfg_path, pretrained)
        with DefaultScope.overwrite_default_scope(config.default_scope):
            return MODELS.build(config.model, default_args=arguments)

    Config._get_cfg_path = staticmethod(our_base_path)
    for module in (hub, hub.hub):
        module.get_config, module.get_model = our_config, our_model
