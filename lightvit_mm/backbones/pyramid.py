"""The contract that every backbone of the package keeps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightvit_mm.checkpoints.strict import StrictLoading
from lightvit_mm.errors import ConfigError, ConfigTypeError
from lightvit_mm.layers.fold import fold_modules

__all__ = ['Arch', 'PyramidBackbone']

Arch = str | Mapping[str, Any]


class PyramidBackbone(StrictLoading):
    """Base class: images in, a feature pyramid out, with the same arguments in every family.

    A family sets ``arch_settings``, ``level_strides`` and ``layouts``. Its ``__init__`` takes
    ``arch``, its own keyword arguments and ``**common``, the arguments below, which it hands on.
    It calls ``super().__init__`` first, makes ``self.stem`` and ``self.stages`` (``num_stages`` of
    them), and calls ``self.finish_init()`` last.

    ``level_format`` is the layout of the levels in memory. Other layouts than the default are for
    models without mmcv's own operators: mmcv 2.1.0's RoIAlign would silently read features of other
    places.

    Args:
        arch: name of a variant in ``arch_settings``, or a dict with the same fields.
        out_indices: increasing numbers of the stages whose outputs are returned; negative ones
            count from the end. None means all. Stages after the last one are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages. Frozen
            parts stay in eval mode and get no gradient.
        norm_eval: keep the BatchNorm statistics fixed during training; the affine parameters are
            still trained.
        norm_cfg: config of every norm that is a BatchNorm in the paper; None means
            ``dict(type='BN')``. Synchronised types become ``BN`` without CUDA.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        with_cp: gradient checkpointing, which saves memory and costs time.
        deploy: build the inference form directly; weights of either form load into it.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.

    Raises:
        TypeError: an unknown argument, or ``arch`` is neither a name nor a dict.
        ValueError: an unknown ``arch``, wrong fields in it, or an index out of range.
    """

    arch_settings: ClassVar[dict[str, dict[str, Any]]]
    level_strides: ClassVar[tuple[int, ...]]
    open_size: ClassVar[bool] = True  # one exported graph is valid for every multiple of 32
    level_format: torch.memory_format = torch.contiguous_format

    stem: nn.Module
    stages: nn.ModuleList

    def __new__(cls, *args: Any, **kwargs: Any) -> PyramidBackbone:
        """Refuse arguments that neither the family nor the contract has."""
        signatures = (inspect.signature(init) for init in (cls.__init__, PyramidBackbone.__init__))
        known = dict.fromkeys(
            name
            for signature in signatures
            for name, parameter in signature.parameters.items()
            if name != 'self' and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        )
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise ConfigTypeError(
                f'{cls.__name__} has no argument {unknown[0]!r}; it takes {", ".join(known)}'
            )
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        arch: Arch,
        *,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch_name, self.arch = self._resolve_arch(arch)
        self.out_indices = self._resolve_out_indices(out_indices)
        self.num_stages = self.out_indices[-1] + 1
        if not -1 <= frozen_stages <= len(self.level_strides):
            raise ConfigError(
                f'{type(self).__name__}: frozen_stages={frozen_stages} is out of range; '
                f'choose -1 (nothing), 0 (stem) or 1 to {len(self.level_strides)} '
                '(stem and that many stages)'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.norm_cfg = self._resolve_norm_cfg(norm_cfg)
        if not 0.0 <= drop_path_rate < 1.0:
            raise ConfigError(f'drop_path_rate={drop_path_rate} must be in [0, 1)')
        self.drop_path_rate = drop_path_rate
        self.with_cp = with_cp
        self.deploy = deploy
        self.deployed = False
        self.out_strides = tuple(self.level_strides[i] for i in self.out_indices)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return tuple(self.level_channels()[i] for i in self.out_indices)

    def level_channels(self) -> tuple[int, ...]:
        """Channels of every level of the architecture, built or not."""
        return tuple(self.arch['embed_dims'])

    def drop_path_rates(self) -> list[list[float]]:
        """Drop path rate of every block of every stage of the architecture."""
        depths = self.arch['depths']
        blocks = range(sum(depths))
        rates = [self.drop_path_rate * i / max(1, len(blocks) - 1) for i in blocks]
        return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]

    def finish_init(self) -> None:
        """Last step of a family's ``__init__``: set the memory layout, freeze, fold."""
        # Convolutions and token layers then share one layout, and viewing a map as tokens is free.
        self.to(memory_format=torch.channels_last)
        self.register_forward_hook(_lay_out_levels)
        self._freeze()
        if self.deploy:
            self.switch_to_deploy()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid.

        Args:
            x: images (N, 3, H, W), floating point, any H, W >= 1.

        Returns:
            One map for each of ``out_indices``: (N, out_channels[i], ceil(H / s), ceil(W / s))
            with s = out_strides[i].
        """
        return self.forward_stages(self.stem(x))

    def forward_stages(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The levels made from the output of the stem."""
        outs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outs.append(self.forward_output(index, x))
        return tuple(outs)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """The level made from the output of stage ``index``; families with output norms differ."""
        return x

    def train(self, mode: bool = True) -> PyramidBackbone:
        """Set the mode; frozen parts, and with ``norm_eval`` every BatchNorm, stay in eval mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def switch_to_deploy(self) -> PyramidBackbone:
        """Fold everything that can be folded, in place, and return the backbone.

        The outputs stay those of eval mode; the statistics for training are lost. Calling it again
        changes nothing.
        """
        if not self.deployed:
            fold_modules(self)
            self.deployed = True
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning-rate decay (mmpretrain's protocol).

        Args:
            param_name: full name of the parameter, with ``prefix``.
            prefix: what the name begins with inside a larger model, e.g. ``'backbone.'``.

        Returns:
            The layer and the number of layers: 0 for the stem, one per block (a downsampling
            belongs to the block after it), the last for everything after the blocks.
        """
        depths = self.arch['depths'][: self.num_stages]
        num_layers = sum(depths) + 2
        name = param_name.removeprefix(prefix).split('.')
        if name[0] == 'stem':
            return 0, num_layers
        if name[0] == 'stages':
            stage = int(name[1])
            block = int(name[3]) if name[2] == 'blocks' else 0
            return sum(depths[:stage]) + block + 1, num_layers
        return num_layers - 1, num_layers

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.stem, *self.stages[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    @classmethod
    def _resolve_arch(cls, arch: Arch) -> tuple[str, dict[str, Any]]:
        choices = ', '.join(repr(name) for name in cls.arch_settings)
        fields = next(iter(cls.arch_settings.values()))
        if isinstance(arch, str):
            if arch not in cls.arch_settings:
                raise ConfigError(f'{cls.__name__} has no arch {arch!r}; choose one of {choices}')
            return arch, cls.arch_settings[arch]
        if not isinstance(arch, Mapping):
            raise ConfigTypeError(
                f'{cls.__name__}: arch must be one of {choices} or a dict with the fields '
                f'{", ".join(fields)}, not {arch!r}'
            )
        if set(arch) != set(fields):
            raise ConfigError(
                f'{cls.__name__}: a custom arch needs exactly the fields {", ".join(fields)}; '
                f'given {", ".join(map(str, arch))}'
            )
        num_levels = len(cls.level_strides)
        for name, setting in fields.items():
            per_stage = isinstance(setting, tuple) and len(setting) == num_levels
            if per_stage and len(arch[name]) != num_levels:
                raise ConfigError(
                    f'{cls.__name__}: {name} of a custom arch needs {num_levels} numbers, one per '
                    f'stage; given {arch[name]}'
                )
        return 'custom', dict(arch)

    @classmethod
    def _resolve_out_indices(cls, out_indices: Sequence[int] | None) -> tuple[int, ...]:
        num_levels = len(cls.level_strides)
        if out_indices is None:
            return tuple(range(num_levels))
        resolved = tuple(i + num_levels if i < 0 else i for i in out_indices)
        in_range = all(0 <= i < num_levels for i in resolved)
        if not resolved or not in_range or list(resolved) != sorted(set(resolved)):
            raise ConfigError(
                f'{cls.__name__}: out_indices={tuple(out_indices)} must be increasing stage '
                f'numbers out of 0 to {num_levels - 1} (strides {cls.level_strides}), '
                f'negative ones counted from the end'
            )
        return resolved

    @classmethod
    def _resolve_norm_cfg(cls, norm_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
        resolved = dict(norm_cfg) if norm_cfg is not None else {'type': 'BN'}
        synchronised = 'SyncB' in str(resolved.get('type'))
        if synchronised and not torch.cuda.is_available():
            print_log(
                f'{cls.__name__}: {resolved["type"]} needs CUDA; using BN',
                logger='current',
                level=logging.WARNING,
            )
            resolved['type'] = 'BN'
        return resolved


def _lay_out_levels(
    module: PyramidBackbone, images: tuple[torch.Tensor], levels: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Lay the levels out in memory as ``level_format``; a forward hook.

    Necks and heads keep the layout of their input.
    """
    levels = tuple(level.contiguous(memory_format=module.level_format) for level in levels)
    for level in levels:
        if level.requires_grad and not torch.compiler.is_compiling():
            # Heads return contiguous gradients. On a CPU, the backward passes of BatchNorm and of
            # convolutions are several times slower where gradient and map differ in layout.
            level.register_hook(_channels_last)
    return levels


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    # Not by memory_format, which torch.vmap does not support.
    return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
