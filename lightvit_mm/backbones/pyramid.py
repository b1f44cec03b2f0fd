"""The contract that every backbone of the package keeps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightvit_mm.checkpoints.layout import (
    Layout,
    Tensors,
    WeightsError,
    find_match,
    fit,
    unwrap,
)
from lightvit_mm.checkpoints.reading import Checkpoint
from lightvit_mm.deploy.fold import fold_modules
from lightvit_mm.errors import ConfigError, ConfigTypeError
from lightvit_mm.layers.contiguous import contiguous_levels

Arch = str | Mapping[str, Any]


class PyramidBackbone(BaseModule):
    """Base class: images in, a feature pyramid out, the same arguments and promises everywhere.

    A family sets ``arch_settings``, ``level_strides`` and ``layouts``, calls ``super().__init__``
    first, makes ``self.stem`` and ``self.stages`` (of ``num_stages`` stages), and calls
    ``self.finish_init()`` last.

    Args:
        arch: name of a variant in ``arch_settings``, or a dict with the same fields.
        out_indices: the stages whose outputs are returned, increasing, negative ones counted from
            the end; None means all. Stages above the last one are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages. Frozen
            means in eval mode and without gradient.
        norm_eval: keep the BatchNorm statistics as they are while training; their affine
            parameters still train.
        norm_cfg: config of every norm that is a BatchNorm in the paper; None means
            ``dict(type='BN')``. Synchronised types become ``BN`` without CUDA.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        with_cp: trade time for memory by gradient checkpointing.
        deploy: build the inference form at once; weights of either form load into it.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.

    Raises:
        TypeError: an unknown argument, or ``arch`` neither a name nor a dict.
        ValueError: an unknown ``arch``, wrong fields in it, or an index out of range.
    """

    arch_settings: ClassVar[dict[str, dict[str, Any]]]
    level_strides: ClassVar[tuple[int, ...]]
    open_size: ClassVar[bool] = True  # one graph is right for every multiple of 32
    layouts: tuple[Layout, ...] = ()  # an instance may have its own, made from its arch

    stem: nn.Module
    stages: nn.ModuleList

    def __new__(cls, *args: Any, **kwargs: Any) -> PyramidBackbone:
        """Keep the arguments, from which `_twin` builds the same network again."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            signature.bind_partial(self, *args, **kwargs)
        except TypeError as error:
            known = ', '.join(list(signature.parameters)[1:])
            raise ConfigTypeError(f'{cls.__name__}: {error}; it takes {known}') from None
        object.__setattr__(self, '_init_arguments', (args, kwargs))
        return self

    def __init__(
        self,
        arch: Arch,
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
        self._weights_source: str | None = None

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
        """Last step of a family's ``__init__``: lay out the memory, freeze, fold."""
        # Convolutions and token layers then work on one layout, and a token view costs no copy.
        self.to(memory_format=torch.channels_last)
        self.register_forward_hook(contiguous_levels)
        self._freeze()
        if self.deploy:
            self.switch_to_deploy()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid.

        Args:
            x: images (N, 3, H, W), floating point, any H, W >= 1.

        Returns:
            For each of ``out_indices`` a map (N, out_channels[i], ceil(H / s), ceil(W / s)) with
            s = out_strides[i].
        """
        x = self.stem(x)
        outs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outs.append(self.forward_output(index, x))
        return tuple(outs)

    def optional_parts(self) -> tuple[str, ...]:
        """Name prefixes of weights that this backbone does without though a file may have them."""
        return ()

    def unpublished_parts(self) -> tuple[str, ...]:
        """Name prefixes of weights that no published file has.

        Such a file may lack them; they then stay as they are, and the line that reports the
        loading says so. A file saved from this backbone must have them.
        """
        return ()

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """What is returned of stage ``index``; a family with output norms overrides it."""
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

        The outputs stay those of eval mode; training-mode statistics are gone. Calling it again
        changes nothing.
        """
        if not self.deployed:
            fold_modules(self)
            self.deployed = True
        return self

    def init_weights(self) -> None:
        """Run mmengine's initialisation; says so where it leaves random weights in place."""
        configs = [self.init_cfg] if isinstance(self.init_cfg, Mapping) else self.init_cfg or []
        sources = [str(cfg['checkpoint']) for cfg in configs if 'checkpoint' in cfg]
        if not sources and not self.is_init:
            print_log(
                f'{self.describe()}: no pretrained weights (init_cfg is {self.init_cfg}), so it '
                'starts from random ones unless a checkpoint is loaded next',
                logger='current',
                level=logging.WARNING,
            )
        self._weights_source = sources[-1] if sources else None
        try:
            super().init_weights()
        finally:
            self._weights_source = None

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning-rate decay (mmpretrain's protocol).

        Args:
            param_name: full name of the parameter, with ``prefix``.
            prefix: what the name begins with inside a larger model, e.g. ``'backbone.'``.

        Returns:
            The layer and the number of layers: 0 for the stem, one per block (a downsampling
            counts with the block behind it), the last for everything after the blocks.
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

    def describe(self) -> str:
        """Class and variant, for messages."""
        return f'{type(self).__name__} {self.arch_name}'

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.stem, *self.stages[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Bring weights of any known layout into ours before the submodules take theirs."""
        checkpoint: Checkpoint | None = local_metadata.get('checkpoint')
        source = self._weights_source or (checkpoint.path if checkpoint else 'the state dict')
        inside = [key for key in state_dict if key.startswith(prefix)]
        weights = unwrap({key[len(prefix) :]: state_dict[key] for key in inside})
        if not weights and checkpoint:
            # A file of the backbone alone, loaded into a whole model: its names have no prefix,
            # so the model took them for strangers. (mmengine has removed a "module." by then.)
            weights = unwrap(checkpoint.state_dict)
            taken = {key.removeprefix('module.') for key in weights}
            unexpected_keys[:] = [key for key in unexpected_keys if key not in taken]
        tensors = self._read_weights(weights, source)
        for key in inside:
            del state_dict[key]
        state_dict.update({prefix + name: tensor for name, tensor in tensors.items()})
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _read_weights(self, weights: Mapping[str, torch.Tensor], source: str) -> Tensors:
        """``weights`` in our layout and in the form (training or deploy) of this backbone."""
        above = range(len(self.stages), len(self.level_strides))
        not_built = tuple(f'stages.{i}.' for i in above) + self.optional_parts()
        own = self.state_dict()
        unpublished = self.unpublished_parts()
        match, expected = find_match(weights, own, self.layouts, not_built, unpublished), own
        if not match.complete:
            with torch.device('meta'):
                other = self._twin(deploy=not self.deployed).state_dict()
            other_match = find_match(weights, other, self.layouts, not_built, unpublished)
            if other_match.fits_at_all and other_match.rank < match.rank:
                match, expected = other_match, other
        if expected is not own and not self.deployed:
            raise WeightsError(
                f'{self.describe()}: {source} holds folded (deploy form) weights, which cannot be '
                'trained. Build the backbone with deploy=True, or load the weights from before '
                'the folding'
            )
        tensors = fit(match, expected, self.describe(), source)
        num_loaded = len(tensors) - len(match.kept)
        print_log(
            f'{self.describe()}: {num_loaded}/{len(expected)} tensors from the '
            f'{match.layout.name} layout of {source}' + match.summary(),
            logger='current',
        )
        if expected is own:
            return tensors
        kept = {name: value for name, value in own.items() if name.startswith(match.absent)}
        return {**self._fold_weights(tensors), **kept}

    def _fold_weights(self, tensors: Tensors) -> Tensors:
        twin = self._twin(deploy=False)
        for name, value in twin.state_dict().items():
            if not tensors[name].is_meta:  # which stands for what the file may lack
                value.copy_(tensors[name])
        return twin.switch_to_deploy().state_dict()

    def _twin(self, deploy: bool) -> PyramidBackbone:
        """Another backbone of the same arguments, in the training or the deploy form."""
        args, kwargs = self._init_arguments
        arguments = inspect.signature(type(self).__init__).bind(self, *args, **kwargs).arguments
        arguments.pop('self')
        return type(self)(**{**arguments, 'deploy': deploy, 'init_cfg': None})

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
                    f'{cls.__name__}: {name} of a custom arch needs {num_levels} numbers, one a '
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
