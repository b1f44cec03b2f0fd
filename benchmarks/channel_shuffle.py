"""Does channel shuffle help? Small networks with and without it on CIFAR-10.

The table of docs/channel_shuffle.md. At the top of the checkout, one thread, with a folder that
holds train.tar and test.tar (or train/ and test/), a folder of images for each class:

    python benchmarks/channel_shuffle.py data/cifar10 [--seeds 0 1 2] [--architectures NAME...]
        [--networks NAME...] [--out work_dirs/channel_shuffle]

Every network is trained for the same epochs by the same recipe. A run leaves a file in ``--out``,
and a run that has one is not repeated; the table is of all files there.
"""

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightvit_mm.backbones import ShuffleDeiT, ShuffleSwin
from lightvit_mm.backbones.shuffle_vit import PatchEmbed
from lightvit_mm.classification import ClassFolders, ImageClassifier
from lightvit_mm.engine.first_screen import QuietRunner
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.files import write_whole
from lightvit_mm.measure.complexity import count_macs, count_parameters

SIDE, PATCH, SHIFT = 32, 8, 4  # pixels: of images, of DeiT's patches, of the random shift
BATCH, EPOCHS, WARMUP = 128, 6, 100  # images, epochs, steps
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 0.05
MEAN, STD = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]  # of the training images


class SmallPatches(PatchEmbed):
    """DeiT's patch embedding with smaller patches, and positions for images of one size."""

    def __init__(self, embed_dims: int, _: int) -> None:
        super().__init__(embed_dims, (SIDE // PATCH) ** 2)
        self.proj = nn.Conv2d(3, embed_dims, PATCH, stride=PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed each patch, and add its position embedding; (N, 3, H, W) to (N, 1 + L, C)."""
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens + self.pos_embed


@MODELS.register_module(force=True)
class SmallDeiT(ShuffleDeiT):
    """DeiT for small images."""

    make_stem = SmallPatches


@MODELS.register_module(force=True)
class SmallSwin(ShuffleSwin):
    """Swin for small images, of which the first two stages are used."""

    window_size = 4


# The backbone, its attended width, and that of a plain one with as many MACs as the shuffled ones.
ARCHITECTURES = {
    'DeiT': ({'type': 'SmallDeiT', 'class_token': True}, (32, 34)),
    'Swin': ({'type': 'SmallSwin', 'out_indices': (1,), 'out_norm': False}, (16, 17)),
}
RESCALES = ('none', 'fixed', 'learnable')
NETWORKS = ('plain', 'plain_wider', *(f'shuffle_{rescale}' for rescale in RESCALES))


def build(architecture: str, network: str) -> ImageClassifier:
    """A classifier of ten classes."""
    backbone, widths = ARCHITECTURES[architecture]
    width = widths[network == 'plain_wider']
    if architecture == 'DeiT':
        arch = {'attend_dims': width, 'depths': (1, 1, 1, 1), 'num_heads': 2}
    else:
        dims = [width * 2**stage for stage in range(4)]
        arch = {'attend_dims': dims, 'depths': (2, 2, 2, 2), 'num_heads': (1, 2, 4, 8)}
    kind, _, detail = network.partition('_')
    options = {'shuffle': False} if kind == 'plain' else {'rescale': detail}
    return ImageClassifier(
        {**backbone, 'arch': arch, **options},
        head={'type': 'ClassifierHead', 'num_classes': 10, 'norm': {'type': 'LN'}},
        data_preprocessor={'type': 'ImgDataPreprocessor', 'mean': MEAN, 'std': STD},
    )


class Images:
    """Images as bytes (N, 3, 32, 32) and their labels (N,), read whole batches at a time."""

    def __init__(self, root: str, part: str) -> None:
        folders = ClassFolders({'img': part}, {'input_size': SIDE, 'crop_pct': 1.0}, root)
        self.labels = torch.tensor([folders.label(i) for i in range(len(folders))])
        self.pixels = torch.empty(len(folders), 3, SIDE, SIDE, dtype=torch.uint8)
        for i in range(len(folders)):
            self.pixels[i] = folders[i]['inputs']

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, numbers: list[int]) -> dict[str, Any]:
        """A batch of shifted and flipped images."""
        count, side = len(numbers), torch.arange(SIDE)
        padded = F.pad(self.pixels[numbers], (SHIFT,) * 4)
        rows, columns = (torch.randint(2 * SHIFT + 1, (2, count, 1)) + side).unbind()
        columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
        number = torch.arange(count)[:, None, None]
        pixels = padded[number, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
        labels = self.labels[numbers].tolist()
        samples = [argparse.Namespace(gt_label=label) for label in labels]
        return {'inputs': pixels, 'data_samples': samples}


def train(model: nn.Module, images: Images, seed: int) -> None:
    """Train with AdamW, a short warm-up and a cosine."""
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        images, BATCH, shuffle=True, generator=order, drop_last=True, collate_fn=lambda batch: batch
    )
    # Biases, norms and other vectors do not decay.
    groups = [
        {'params': [p for p in model.parameters() if p.ndim > 1], 'weight_decay': WEIGHT_DECAY},
        {'params': [p for p in model.parameters() if p.ndim < 2], 'weight_decay': 0.0},
    ]
    schedule = {
        'type': 'WarmupCosineLR', 'convert_to_iter_based': True, 'every': 'step',
        'epochs': EPOCHS, 'warmup_steps': WARMUP,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as work_dir:
        QuietRunner(
            model=model,
            work_dir=work_dir,
            train_dataloader=loader,
            train_cfg={'by_epoch': True, 'max_epochs': EPOCHS},
            optim_wrapper=OptimWrapper(torch.optim.AdamW(groups, LEARNING_RATE)),
            param_scheduler=schedule,
            default_hooks={
                'checkpoint': None,
                'logger': {'type': 'LoggerHook', 'interval': len(loader)},
            },
            visualizer={'type': 'Visualizer', 'vis_backends': None},
            randomness={'seed': seed},
            experiment_name=Path(work_dir).name,
        ).train()


@torch.no_grad()
def accuracy(model: Any, images: Images) -> float:
    """Top-1 in percent."""
    model.eval()
    right = 0
    for pixels, labels in zip(images.pixels.split(500), images.labels.split(500), strict=True):
        inputs = model.data_preprocessor({'inputs': pixels})['inputs']
        right += int((model(inputs).argmax(1) == labels).sum())
    return 100 * right / len(images)


def run(architecture: str, network: str, seed: int, train_on: Images, test_on: Images) -> dict:
    """Train and evaluate one network."""
    set_random_seed(seed)
    model = build(architecture, network)
    start = time.process_time()
    train(model, train_on, seed)
    minutes = (time.process_time() - start) / 60
    return {
        'architecture': architecture, 'network': network, 'seed': seed, 'epochs': EPOCHS,
        'top1': accuracy(model, test_on), 'cpu_minutes': minutes,
        'macs': count_macs(model, SIDE, SIDE), 'parameters': count_parameters(model),
    }  # fmt: skip


def tabulate(rows: list[dict]) -> Table:
    """Means over the seeds; the standard error is that of the difference from the plain network.

    It assumes that all networks of an architecture have the same spread over the seeds.
    """
    table = Table(
        'network', 'MMACs', 'parameters', 'seeds', 'top-1', 'spread', 'difference', 'CPU minutes',
        box=MARKDOWN,
    )  # fmt: skip
    for architecture in ARCHITECTURES:
        found: dict[str, list[dict]] = {}
        for row in (row for row in rows if row['architecture'] == architecture):
            found.setdefault(row['network'], []).append(row)
        scores = {name: [row['top1'] for row in found[name]] for name in NETWORKS if name in found}
        several = [values for values in scores.values() if len(values) > 1]
        variance = statistics.fmean(statistics.variance(v) for v in several) if several else 0.0
        for name, values in scores.items():
            one, mean = found[name][0], statistics.fmean(values)
            spread = f'{statistics.stdev(values):.2f}' if len(values) > 1 else ''
            difference = ''
            if name != 'plain' and 'plain' in scores:
                plain = scores['plain']
                error = math.sqrt(variance * (1 / len(values) + 1 / len(plain)))
                difference = f'{mean - statistics.fmean(plain):+.2f}'
                difference += f' ± {error:.2f}' if several else ''
            minutes = statistics.fmean(row['cpu_minutes'] for row in found[name])
            table.add_row(
                f'{architecture} {name}', f'{one["macs"] / 1e6:.2f}', f'{one["parameters"]:,}',
                str(len(values)), f'{mean:.2f}', spread, difference, f'{minutes:.1f}',
            )  # fmt: skip
    return table


def main() -> None:
    """Run what was not run before, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', help='folder with train and test, or train.tar and test.tar')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--architectures', nargs='+', choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=NETWORKS)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/channel_shuffle'))
    args = parser.parse_args()
    keep_freed_memory()
    runs = itertools.product(args.architectures, args.networks, args.seeds)
    files = {what: args.out / f'{"_".join(map(str, what))}.json' for what in runs}
    missing = {what: file for what, file in files.items() if not file.exists()}
    if missing:
        train_on, test_on = (Images(args.data, part) for part in ('train', 'test'))
    for number, (what, file) in enumerate(missing.items(), 1):
        print(f'run {number} of {len(missing)}: {what}', flush=True)
        row = run(*what, train_on, test_on)
        write_whole(file, json.dumps(row))
        print(
            f'top-1 {row["top1"]:.2f} in {row["cpu_minutes"]:.1f} CPU minutes: {file}', flush=True
        )
    rows = [json.loads(file.read_text()) for file in sorted(args.out.glob('*.json'))]
    Console(width=120).print(tabulate(rows))


if __name__ == '__main__':
    main()
