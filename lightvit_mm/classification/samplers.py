"""timm's samplers as mmengine builds them: by the data set and the seed of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from lightvit_mm.registry import DATA_SAMPLERS
from lightvit_mm.timm_import import import_timm


@DATA_SAMPLERS.register_module()
class RepeatedAugmentationSampler(Sampler):
    """Every image several times in a row, over all processes, and no more images than there are.

    On one GPU the copies are neighbours, and with 3 copies a third of the images is seen in an
    epoch. The authors' runs had 8 GPUs, of which each saw another copy.

    Args:
        dataset: the data set.
        seed: of the run; every epoch has another order.
        num_repeats: number of copies.
        shuffle: False keeps the order of the data set.
    """

    def __init__(
        self, dataset: Any, seed: int | None = 0, num_repeats: int = 3, shuffle: bool = True
    ) -> None:
        import_timm()
        from timm.data.distributed_sampler import RepeatAugSampler

        rank, processes = get_dist_info()
        self.seed = seed or 0
        self._inner = RepeatAugSampler(
            dataset, processes, rank, shuffle=shuffle, num_repeats=num_repeats
        )
        self.set_epoch(0)

    def __iter__(self) -> Iterator[int]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self._inner.set_epoch(self.seed + epoch)


@DATA_SAMPLERS.register_module()
class MultiScaleBatchSampler(Sampler):
    """Batches of images of one size, which changes from batch to batch.

    It yields pairs of the number of an image and that of its size, for `ClassFolders` with several
    ``sizes``. Every process draws its own sizes, and all have equally many batches.

    Args:
        sampler: of the numbers of images.
        batch_size: a number of images for each size.
        seed: of the sizes.
    """

    def __init__(self, sampler: Any, batch_size: Sequence[int], seed: int = 0) -> None:
        import_timm()
        from timm.data.scheduled_sampler import ScheduledBatchSampler

        self.sampler = sampler
        mean = sum(batch_size) / len(batch_size)
        self._inner = ScheduledBatchSampler(
            sampler,
            batch_size,
            seed=seed + 1_000_003 * get_dist_info()[0],
            num_batches=max(1, int(len(sampler) / mean)),
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # mmengine's hook has set the epoch of the sampler of images.
        self._inner.epoch = getattr(self.sampler, 'epoch', 0)
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)
