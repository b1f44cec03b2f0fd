"""An error in the middle of a run says which image it was met in."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import Compose
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from lightvit_mm.errors import UserError


class BrokenSampleError(UserError):
    """An image and its annotations that the pipeline of the config fails on."""

    def __init__(self, message: str) -> None:
        # A worker's error comes back made anew from the text of its whole traceback.
        super().__init__(message.rsplit(f'{type(self).__name__}: ', 1)[-1].strip())


class _NamingPipeline(Compose):
    """A pipeline that says what it fails on; libraries say at best why."""

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
                f'{type(error).__name__}: {reason}. Mend or remove it; '
                'python tools/check_data.py CONFIG finds all such images'
            ) from error


class NamingRunner(Runner):
    """mmengine's Runner, whose data sets say which image their pipeline fails on."""

    @staticmethod
    def build_dataloader(
        dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As the Runner does it; here since some loops start the workers at once."""
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        name_broken_samples(built.dataset)
        return built


def name_broken_samples(dataset: Any) -> None:
    """Make a data set, and those inside it, raise `BrokenSampleError` where a pipeline fails."""
    pipeline = getattr(dataset, 'pipeline', None)
    if isinstance(pipeline, Compose) and not isinstance(pipeline, _NamingPipeline):
        dataset.pipeline = _NamingPipeline(pipeline)
    for inner in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if inner is not None:
            name_broken_samples(inner)
