"""Errors in the middle of a run that name the image they occurred in."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import Compose
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from lightvit_mm.errors import UserError


class BrokenSampleError(UserError):
    """The config's pipeline fails on an image or its annotations."""

    def __init__(self, message: str) -> None:
        # torch rebuilds an error of a data worker from the text of its whole traceback.
        super().__init__(message.rsplit(f'{type(self).__name__}: ', 1)[-1].strip())


class _NamingPipeline(Compose):
    """A pipeline that names the image it fails on; libraries give the reason at best."""

    def __init__(self, pipeline: Compose) -> None:
        self.transforms = pipeline.transforms

    def __call__(self, data: dict) -> dict | None:
        """Run the transforms."""
        image, number = data.get('img_path'), data.get('img_id')
        try:
            return super().__call__(data)
        except Exception as error:
            reason = str(error).strip().split('\n')[0]
            raise BrokenSampleError(
                f'{image}{"" if number is None else f" (image {number})"} cannot be used: '
                f'{type(error).__name__}: {reason}. Fix or remove it; '
                'python tools/check_data.py CONFIG finds all such images'
            ) from error


class NamingRunner(Runner):
    """mmengine's Runner with data sets that name the image their pipeline fails on."""

    @staticmethod
    def build_dataloader(
        dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build the loader; the wrapping happens here because some loops start workers at once."""
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        name_broken_samples(built.dataset)
        return built


def name_broken_samples(dataset: Any) -> None:
    """Make a data set and the ones it wraps raise `BrokenSampleError` where a pipeline fails."""
    pipeline = getattr(dataset, 'pipeline', None)
    if isinstance(pipeline, Compose) and not isinstance(pipeline, _NamingPipeline):
        dataset.pipeline = _NamingPipeline(pipeline)
    for inner in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if inner is not None:
            name_broken_samples(inner)
