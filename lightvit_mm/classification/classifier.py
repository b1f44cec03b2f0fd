"""Image classification with any backbone of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader
from torch import nn
from torch.nn import functional as F

from lightvit_mm.checkpoints.heads import match_head
from lightvit_mm.checkpoints.layout import CLASSIFIER_MARK, Tensors, unwrap
from lightvit_mm.errors import ConfigError, UserError
from lightvit_mm.registry import MODELS
from lightvit_mm.timm_import import import_timm

__all__ = ['ImageClassifier']

TEACHER_SHARE = 0.5  # of the loss, in DeiT's code and RepViT's


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """A backbone and a head, trained with timm's augmentation of whole batches.

    Its weights are loaded from every published layout of a classifier, head included. A checkpoint
    of it can be the ``init_cfg`` of the backbone in a detector or segmentor.

    Args:
        backbone: config of a `PyramidBackbone`.
        head: config of a `ClassifierHead`, without ``in_channels``.
        data_preprocessor: config of mmengine's ``ImgDataPreprocessor``.
        erasing: probability of replacing a rectangle of an image by noise, after normalising.
        mixup: arguments of timm's ``Mixup``, without ``num_classes`` and ``label_smoothing``. It
            needs an even number of images.
        smoothing: share of the label that is spread over all classes.
        teacher: ``dict(model=..., checkpoint=...)``, a model of timm whose best class the head's
            second layer learns (hard distillation). It sees the mixed images. Its weights are
            loaded by ``init_weights``, and are not part of checkpoints.
        init_cfg: mmengine's.

    Raises:
        ConfigError: there is a teacher, and ``head.distilled`` is False.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        erasing: float = 0.0,
        mixup: Mapping[str, Any] | None = None,
        smoothing: float = 0.0,
        teacher: Mapping[str, str] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build({'in_channels': self.backbone.out_channels[-1], **head})
        self.erasing = erasing
        self.mixup = mixup
        self.smoothing = smoothing
        self.teacher = teacher
        if teacher and not self.head.distilled:
            raise ConfigError('a teacher needs head.distilled=True, whose second layer it teaches')
        self._teacher: tuple[nn.Module, ...] = ()  # a tuple, so that checkpoints leave it out

    def init_weights(self) -> None:
        """Initialise, and load the teacher if there is one."""
        super().init_weights()
        if self.teacher and not self._teacher:
            timm = import_timm()
            teacher = timm.create_model(self.teacher['model'], num_classes=self.head.num_classes)
            source = self.teacher['checkpoint']
            content = CheckpointLoader.load_checkpoint(source, 'cpu', logger='silent')
            teacher.load_state_dict(unwrap(content))
            self._teacher = (teacher.eval().requires_grad_(False),)

    def forward(
        self, inputs: torch.Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Classify images.

        Args:
            inputs: normalised images (N, 3, H, W).
            data_samples: N samples with ``gt_label``; for ``'predict'`` without it too.
            mode: ``'tensor'``, ``'predict'`` or ``'loss'``.

        Returns:
            Logits (N, num_classes); or the samples with ``pred_scores`` (num_classes,), which add
            up to 1, and ``pred_label``; or the losses by name.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples or ())
        logits = self.head(self.backbone(inputs))
        if mode == 'tensor':
            return logits
        for sample, scores in zip(data_samples or (), logits.float().softmax(-1), strict=True):
            sample.pred_scores = scores
            sample.pred_label = scores.argmax()
        return data_samples

    def loss(self, images: torch.Tensor, data_samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Losses of a training step, of images (N, 3, H, W) and samples with ``gt_label``."""
        labels = torch.tensor([int(s.gt_label) for s in data_samples], device=images.device)
        images, targets = self.augment(images, labels)
        logits = self.head(self.backbone(images))
        if not self.head.distilled:
            return {'loss': self._cross_entropy(logits, targets)}
        if not self._teacher:
            raise UserError('a distilled head needs a teacher to be trained: model.teacher')
        (teacher,) = self._teacher
        with torch.no_grad():
            taught = teacher.to(images.device)(images).argmax(-1)
        return {
            'loss_label': (1 - TEACHER_SHARE) * self._cross_entropy(logits[0], targets),
            'loss_teacher': TEACHER_SHARE * F.cross_entropy(logits[1].float(), taught),
        }

    @torch.no_grad()
    def augment(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Erase, then mix, on the device of the images.

        Args:
            images: (N, 3, H, W).
            labels: (N,) numbers of classes.

        Returns:
            The images, and what the network is to say: the labels, or (N, num_classes) where
            labels are mixed.
        """
        if self.erasing:
            images = self._erase(images)
        if not self.mixup:
            return images, labels
        if len(images) % 2:
            raise UserError(
                f'mixup needs an even number of images, and there are {len(images)}: set '
                'train_dataloader.batch_size to an even number, and drop_last=True'
            )
        return self._mix(images, labels)

    def load_head(self, weights: Mapping[str, Any]) -> Tensors:
        """The head's tensors by the model's names, from a classifier in any published layout."""
        return {f'head.{name}': value for name, value in self._match(weights).tensors.items()}

    def _match(self, weights: Mapping[str, Any]) -> Any:
        return match_head(weights, self.head.state_dict())

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smoothing = self.smoothing if targets.ndim == 1 else 0.0  # mixed ones are smooth already
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def _erase(self, images: torch.Tensor) -> torch.Tensor:
        import_timm()
        from timm.data.random_erasing import RandomErasing

        return RandomErasing(self.erasing, mode='pixel', device=images.device)(images)

    @cached_property
    def _mix(self) -> Any:
        import_timm()
        from timm.data import Mixup

        assert self.mixup
        classes = self.head.num_classes
        return Mixup(**self.mixup, label_smoothing=self.smoothing, num_classes=classes)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *arguments: Any, **options: Any
    ) -> None:
        """Sort the tensors of a published classifier into ``backbone.`` and ``head.``."""
        inside = [key for key in state_dict if key.startswith(prefix)]
        weights = unwrap({key[len(prefix) :]: state_dict[key] for key in inside})
        match = self._match(weights)
        if match.tensors:
            # Without the counters of BatchNorm, which have no effect on the outputs.
            found, expected = (
                sum(not name.endswith('num_batches_tracked') for name in tensors)
                for tensors in (match.tensors, self.head.state_dict())
            )
            layout = f'in the {match.layout.name} layout'
            print_log(f'head: {found}/{expected} tensors, {layout}', logger='current')
        ours = CLASSIFIER_MARK in weights and any(key.startswith('backbone.') for key in weights)
        if not ours:  # the backbone finds its own among them
            for key in inside:
                del state_dict[key]
            state_dict.update({f'{prefix}backbone.{key}': v for key, v in weights.items()})
        state_dict.update({f'{prefix}head.{name}': v for name, v in match.tensors.items()})
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)
