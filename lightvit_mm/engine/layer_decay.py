"""Layer-wise learning-rate decay: layers closer to the image get smaller learning rates."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.engine.param_groups import Group, merge_equal_groups
from lightvit_mm.errors import UserError
from lightvit_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LightViTLayerDecay(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with the learning rates of a backbone's layers scaled by depth.

    Layer l of n (`PyramidBackbone.get_layer_depth`) gets ``decay_rate ** (n - 1 - l)`` times the
    learning rate it would otherwise have, e.g. from ``custom_keys`` or ``bias_lr_mult``. Nothing
    outside the backbone changes. Parameters with the same settings share one group, since every
    group adds to the time of an optimizer step.

    A schedule's ``eta_min`` applies to all groups and may exceed the initial learning rate of the
    first layers: use ``eta_min_ratio`` instead, or 0 if the scheduler has none (PolyLR).

    The backbone may be anywhere in the model, and there may be several::

        optim_wrapper = dict(
            constructor='LightViTLayerDecay',
            paramwise_cfg=dict(decay_rate=0.8, norm_decay_mult=0.0))

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with the ``optimizer`` and its ``lr``.
        paramwise_cfg: ``decay_rate`` in (0, 1], and the options of mmengine's constructor.

    Raises:
        UserError: ``decay_rate`` or ``lr`` is missing or invalid, or the model to optimise has no
            `PyramidBackbone`.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('decay_rate')
        if not _is_number(rate) or not 0 < rate <= 1:
            found = (
                f'decay_rate={rate!r}' if 'decay_rate' in self.paramwise_cfg else 'no decay_rate'
            )
            raise UserError(
                'LightViTLayerDecay needs a decay_rate in (0, 1], for instance '
                f'paramwise_cfg=dict(decay_rate=0.8); the config has {found}'
            )
        if not _is_number(self.base_lr):
            raise UserError(
                'LightViTLayerDecay scales the learning rate of the optimizer, so the config must '
                f'set it; optimizer.lr is {self.base_lr!r}'
            )

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add groups for all parameters of ``module``; mmengine calls this for every submodule."""
        if prefix:
            super().add_params(params, module, prefix, is_dcn_module)
            return
        base_lr: Any = self.base_lr
        scales = self._layer_scales(module)
        single: list[Group] = []
        super().add_params(single, module, prefix, is_dcn_module)
        for group in single:
            scale = scales.get(group['params'][0], 1.0)
            group['lr'] = group.get('lr', base_lr) * scale
        params.extend(merge_equal_groups(single))

    def _layer_scales(self, model: nn.Module) -> dict[nn.Parameter, float]:
        rate, scales = self.paramwise_cfg['decay_rate'], {}
        for path, backbone in model.named_modules():
            if not isinstance(backbone, PyramidBackbone):
                continue
            prefix = f'{path}.' if path else ''
            num_layers = 0
            for name, parameter in backbone.named_parameters():
                layer, num_layers = backbone.get_layer_depth(prefix + name, prefix)
                scales[parameter] = rate ** (num_layers - 1 - layer)
            print_log(
                f'{backbone.describe()} ({path or "the model"}): learning rate of its {num_layers} '
                f'layers scaled from {rate ** (num_layers - 1):.3g} to 1 by decay_rate={rate}, on '
                'top of the paramwise_options listed next',
                logger='current',
            )
        if not scales:
            raise UserError(
                f'LightViTLayerDecay: {type(model).__name__} has no backbone of lightvit_mm, '
                "so there are no layers to scale; remove constructor='LightViTLayerDecay'"
            )
        return scales


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
