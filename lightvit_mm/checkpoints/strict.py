"""Loading weights of any known layout into a backbone, completely or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import nn

from lightvit_mm.checkpoints.layout import (
    Layout,
    Match,
    Tensors,
    WeightsError,
    find_match,
    fit,
    unwrap,
)
from lightvit_mm.checkpoints.reading import Checkpoint
from lightvit_mm.checkpoints.weights import find_weights

__all__ = ['StrictLoading']

MOST_DAMAGED = 10


class StrictLoading(BaseModule):
    """Mixin of `PyramidBackbone`: ``load_state_dict`` takes every published layout.

    It works wherever torch's loading does: in ``init_cfg``, in ``load_from``, in ``init_detector``,
    and inside a whole released detector. The keys under the backbone's own prefix decide the
    layout. Afterwards one line reports how many tensors were loaded, and from which layout.

    Raises:
        WeightsError: from ``load_state_dict``, if a tensor is missing, unexpected, of the wrong
            shape or not finite, or if folded weights meet a backbone in its training form.
    """

    level_strides: ClassVar[tuple[int, ...]]
    layouts: tuple[Layout, ...] = ()  # an instance may have its own, made from its arch

    arch_settings: ClassVar[dict[str, dict[str, Any]]]
    arch_name: str
    deployed: bool
    stages: nn.ModuleList

    def __new__(cls, *args: Any, **kwargs: Any) -> StrictLoading:
        """Keep the arguments, from which `_twin` builds the same network again."""
        self = super().__new__(cls)
        object.__setattr__(self, '_init_arguments', (args, kwargs))
        object.__setattr__(self, '_weights_source', None)
        return self

    def describe(self) -> str:
        """Class and variant, for messages."""
        return f'{type(self).__name__} {self.arch_name}'

    def optional_parts(self) -> tuple[str, ...]:
        """Name prefixes of weights that a file may have and this backbone does not use."""
        return ()

    def unpublished_parts(self) -> tuple[str, ...]:
        """Name prefixes of weights that no published file has.

        Where a published file lacks them they keep their values, and the line that reports the
        loading says so. A file saved from this backbone must have them.
        """
        return ()

    def init_weights(self) -> None:
        """Run mmengine's initialisation, and warn if it leaves the weights random."""
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

    def load_weights(self, source: str) -> None:
        """Load weights as ``init_cfg`` would, at once.

        Args:
            source: a file, an https address, or a name such as ``timm://repvit_m1``.

        Raises:
            CheckpointError: the weights cannot be fetched or read.
            WeightsError: they do not fit; nothing has been loaded.
        """
        weights = unwrap(CheckpointLoader.load_checkpoint(source, 'cpu', logger='silent'))
        self._weights_source = source
        try:
            self.load_state_dict(weights)
        finally:
            self._weights_source = None

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
        """Convert the weights to our layout before the submodules take theirs."""
        checkpoint: Checkpoint | None = local_metadata.get('checkpoint')
        source = self._weights_source or (checkpoint.path if checkpoint else 'the state dict')
        inside = [key for key in state_dict if key.startswith(prefix)]
        weights = unwrap({key[len(prefix) :]: state_dict[key] for key in inside})
        if not weights and checkpoint:
            # A file of the backbone alone, loaded into a whole model: its keys have no prefix, so
            # the model reported them as unexpected. (mmengine has removed "module." by then.)
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
        try:
            tensors = fit(match, expected, self.describe(), source)
        except WeightsError as error:
            variants = self._fitting_variants(match, expected, self.deployed == (expected is own))
            hint = f' It fits arch={" or ".join(map(repr, variants))}' if variants else ''
            raise WeightsError(f'{error}{hint}') from None
        num_loaded = len(tensors) - len(match.kept)
        published = find_weights(source)
        print_log(
            f'{self.describe()}: {num_loaded}/{len(expected)} tensors from the '
            f'{match.layout.name} layout of {source}'
            + (f' ({published.origin})' if published else '')
            + match.summary(),
            logger='current',
        )
        if expected is own:
            return tensors
        kept = {name: value for name, value in own.items() if name.startswith(match.absent)}
        return {**self._fold_weights(tensors), **kept}

    def _fitting_variants(self, match: Match, expected: Tensors, deploy: bool) -> list[str]:
        """The other variants of this family that the tensors of ``match`` fit."""
        there = _shapes(match.tensors)
        differing = there.items() ^ _shapes(expected).items()
        if len(differing) <= MOST_DAMAGED or self.arch_name not in self.arch_settings:
            return []  # a damaged file of this variant, or an architecture of the user's own
        fitting = []
        for arch in self.arch_settings:
            with torch.device('meta'):
                twin = self._twin(deploy, arch)
            if _shapes(twin.state_dict()) == there:
                fitting.append(arch)
        return fitting

    def _fold_weights(self, tensors: Tensors) -> Tensors:
        twin = self._twin(deploy=False)
        for name, value in twin.state_dict().items():
            if not tensors[name].is_meta:  # a meta tensor stands for one that the file may lack
                value.copy_(tensors[name])
        return twin.switch_to_deploy().state_dict()

    def _twin(self, deploy: bool, arch: str = '') -> Any:
        """Another backbone with the same arguments, in the training or the deploy form."""
        args, kwargs = self._init_arguments
        if arch:
            args, kwargs = (arch, *args[1:]), {k: v for k, v in kwargs.items() if k != 'arch'}
        return type(self)(*args, **{**kwargs, 'deploy': deploy, 'init_cfg': None})


def _shapes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes by name, without the counters, which files may lack."""
    return {
        name: getattr(value, 'shape', None)
        for name, value in tensors.items()
        if not name.endswith('num_batches_tracked')
    }
