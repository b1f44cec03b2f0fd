"""Top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from lightvit_mm.registry import METRICS

BEST = (1, 5)


@METRICS.register_module()
class TopAccuracy(BaseMetric):
    """Percent of images whose class is the first, or among the first five, by score.

    The results are ``top1`` and ``top5``; with fewer than six classes, ``top1`` alone.
    """

    default_prefix = ''  # the names stand alone

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the place of the true class of each image among the predicted ones."""
        for sample in data_samples:
            scores, label = sample['pred_scores'], int(sample['gt_label'])
            place = int((scores > scores[label]).sum())
            self.results.append((place, len(scores), bool(scores.isfinite().all())))

    def compute_metrics(self, results: list[tuple[int, int, bool]]) -> dict[str, float]:
        """Accuracies in percent."""
        places = torch.tensor([place if finite else number for place, number, finite in results])
        classes = results[0][1]
        shown = (k for k in BEST if k == 1 or k < classes)
        return {f'top{k}': 100 * (places < k).double().mean().item() for k in shown}
