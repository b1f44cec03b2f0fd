"""The logged losses and metrics of a training run, including its resumed parts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# COCO metrics are logged as fractions, the others in percent.
COCO_PREFIX = 'coco/'
IN_PERCENT = ('mIoU', 'mAcc', 'aAcc', 'top1', 'top5')


@dataclass
class History:
    """Loss and learning rate by iteration, and metrics (in percent) by iteration.

    Attributes:
        loss: total loss, averaged by the config's log processor.
        loss_parts: the losses that add up to it, by name, if there are several.
        lr: learning rate.
        time: seconds per iteration, averaged like the loss.
        data_time: the part of ``time`` spent waiting for images.
        memory: peak so far in MB: of tensors on a GPU, of the process on a CPU.
        metrics: values by iteration for each metric, e.g. ``'bbox_mAP'`` or ``'mIoU'``.
    """

    loss: dict[int, float] = field(default_factory=dict)
    loss_parts: dict[str, dict[int, float]] = field(default_factory=dict)
    lr: dict[int, float] = field(default_factory=dict)
    time: dict[int, float] = field(default_factory=dict)
    data_time: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """The last logged iteration."""
        return max([0, *self.loss, *(i for values in self.metrics.values() for i in values)])

    def final(self) -> dict[str, float]:
        """Metrics after the last iteration; empty if it was not followed by an evaluation."""
        end = max(self.loss, default=0)
        return {
            metric: values[max(values)]
            for metric, values in self.metrics.items()
            if max(values) >= end
        }


def read_history(work_dir: str | Path) -> History:
    """Read every ``scalars.json`` under ``work_dir``; later runs override earlier ones."""
    history = History()
    last_of_epoch: dict[int, int] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        # A killed run may leave an incomplete last line.
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if 'loss' in entry:
                iteration = entry['step']
                history.loss[iteration] = entry['loss']
                history.lr[iteration] = entry.get('base_lr', entry['lr'])
                for name in ('time', 'data_time', 'memory'):
                    if name in entry:
                        getattr(history, name)[iteration] = entry[name]
                for name in entry:
                    if 'loss_' in name:
                        history.loss_parts.setdefault(name, {})[iteration] = entry[name]
                if 'epoch' in entry:
                    last = last_of_epoch.get(entry['epoch'], 0)
                    last_of_epoch[entry['epoch']] = max(last, iteration)
            else:
                # In epoch-based training, validation logs the epoch as its step.
                iteration = last_of_epoch.get(entry['step'], entry['step'])
                for name, value in metrics_in_percent(entry).items():
                    history.metrics.setdefault(name, {})[iteration] = value
    return history


def metrics_in_percent(entry: dict[str, Any]) -> dict[str, float]:
    """Metrics of a log entry, with the names used in ``configs/published.yml``."""
    return {
        name.removeprefix(COCO_PREFIX): 100 * value if name.startswith(COCO_PREFIX) else value
        for name, value in entry.items()
        if name.startswith(COCO_PREFIX) or name in IN_PERCENT
    }
