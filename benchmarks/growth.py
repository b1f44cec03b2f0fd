"""Time and memory over the size of the input and the number of instances.

python benchmarks/growth.py prints the table of docs/reliability.md; about three minutes on
one core. Each figure is of a process of its own: the fastest of three repetitions, and the largest
resident memory above that before the first.
"""

import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from lightvit_mm.engine.configs import load_config

CONFIGS = Path(__file__).parents[1] / 'configs'
SIDES = (128, 256, 512, 1024)
INSTANCES = (1, 10, 100, 1000)


def build(name: str) -> Any:
    """A model of a config with random weights."""
    config = load_config(str(CONFIGS / name))
    init_default_scope(config.default_scope)
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    return MODELS.build(config.model)


def sample(side: int, instances: int, masks: bool) -> Any:
    """An image's annotations: boxes of 8 to 40 px at random places."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    meta = {'img_shape': (side, side), 'pad_shape': (side, side), 'ori_shape': (side, side)}
    sample = DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)})
    corner = torch.rand(instances, 2) * (side - 40)
    boxes = torch.cat([corner, corner + 8 + 32 * torch.rand(instances, 2)], 1)
    labels = torch.zeros(instances, dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    if masks:
        bitmaps = torch.zeros(instances, side, side, dtype=torch.uint8)
        for bitmap, (left, top, right, bottom) in zip(bitmaps, boxes.long().tolist(), strict=True):
            bitmap[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(bitmaps.numpy(), side, side)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
    return sample


def inference(name: str, side: int) -> Callable[[], Any]:
    """A prediction on one image."""
    model = build(name).eval()
    data = {'inputs': [torch.rand(3, side, side) * 255], 'data_samples': [sample(side, 1, False)]}
    return torch.no_grad()(lambda: model.test_step(data))


def training(name: str, instances: int) -> Callable[[], Any]:
    """A forward and backward pass on one image of 256 px."""
    model = build(name).train()
    samples = [sample(256, instances, 'mask_rcnn' in name)]
    raw = {'inputs': [torch.rand(3, 256, 256) * 255], 'data_samples': samples}

    def step() -> None:
        data = model.data_preprocessor(raw, True)
        model.parse_losses(model(**data, mode='loss'))[0].backward()

    return step


def peak() -> float:
    """Largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def figure(make: Callable[..., Callable[[], Any]], name: str, size: int, out: Any) -> None:
    """Put seconds and megabytes of one case into a queue."""
    torch.set_num_threads(1)
    run = make(name, size)
    before, times = peak(), []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    out.put((min(times), peak() - before))


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """Of the power of the size by which the larger two values grow."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def main() -> None:
    """Measure and print."""
    cases = [
        (inference, name, SIDES)
        for name in ('retinanet_edgevit_xxs_coco.py', 'semantic_fpn_repvit_m0_6_ade20k.py')
    ]
    cases += [
        (training, name, INSTANCES)
        for name in ('retinanet_edgevit_xxs_coco.py', 'mask_rcnn_edgevit_xxs_coco.py')
    ]
    # Spawned: a fork would begin with the largest memory of its parent.
    context = multiprocessing.get_context('spawn')
    for make, name, sizes in cases:
        figures = []
        for size in sizes:
            out = context.SimpleQueue()
            process = context.Process(target=figure, args=(make, name, size, out))
            process.start()
            process.join()
            figures.append(out.get())
        seconds, memory = ([row[index] for row in figures] for index in (0, 1))
        cells = ' | '.join(f'{time * 1000:.0f} ms, {mb:.0f} MB' for time, mb in figures)
        powers = [f'n^{exponent(sizes, values):.2f}' for values in (seconds, memory)]
        print(f'| {make.__name__}, {name} | {cells} | {" and ".join(powers)} |', flush=True)


if __name__ == '__main__':
    main()
