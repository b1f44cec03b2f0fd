"""Classifiers trained for a few epochs, and what a pretrained backbone gives to a detector.

The tables of docs/pretrain.md, which has the commands. At the top of the checkout, one thread:

    python benchmarks/pretraining.py configs/repvit_m0_6_in1k.py \
        --train-data DIR --val-data DIR --epochs 2 --results DIR [--size 160] [--seeds 0 1 2]
    python benchmarks/pretraining.py configs/retinanet_edgevit_xxs_shapes.py --results DIR \
        --data-root data/shapes --steps 1158 [--backbone CHECKPOINT] [--seeds 0 1 2]

Classifiers of all families are trained with the options of SHORT: the papers' recipes begin with
epochs at a rate of almost 0 and mix images, which needs many epochs. Detectors are trained as
compare_heads.py trains them. Every run leaves its result in the folder of the results, and one that
is there is not repeated. In the end, all of them are printed as a table, which with --page replaces
the one in that page that is marked by the name of the folder.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

from compare_heads import METRICS, cpu_times, run

from lightvit_mm.data.config import is_classifier
from lightvit_mm.engine.arguments import (
    add_own_data_arguments,
    add_run_arguments,
    config_of,
    with_own_data,
)
from lightvit_mm.engine.running import train
from lightvit_mm.files import write_whole

# Weight decay, clipping, drop path and the scale of the pixels stay those of the family.
TRAIN = 'train_dataloader'
SHORT: dict[str, Any] = {
    'model.erasing': 0.0, 'model.mixup': None, 'model.smoothing': 0.1,
    f'{TRAIN}.batch_size': 16, f'{TRAIN}.batch_sampler': None, f'{TRAIN}.drop_last': True,
    f'{TRAIN}.sampler.type': 'DefaultSampler', f'{TRAIN}.sampler.shuffle': True,
    f'{TRAIN}.dataset.sizes': [], f'{TRAIN}.dataset.transform.scale': [0.35, 1.0],
    f'{TRAIN}.dataset.transform.interpolation': 'bicubic',
    f'{TRAIN}.dataset.transform.auto_augment': None,
    f'{TRAIN}.dataset.transform.color_jitter': 0.4,
    'val_dataloader.dataset.transform.interpolation': 'bicubic',
    'val_dataloader.dataset.transform.crop_pct': 0.875,
    'optim_wrapper.optimizer.lr': 5e-4,
    'param_scheduler.every': 'step', 'param_scheduler.delay': 0,
    'param_scheduler.warmup_epochs': 0, 'param_scheduler.warmup_steps': 50,
    'param_scheduler.warmup_lr': 1e-6, 'param_scheduler.eta_min': 1e-6,
}  # fmt: skip


def train_classifier(args: argparse.Namespace) -> dict[str, float]:
    """Train a classifier for the epochs; returns its accuracy in percent and CPU minutes."""
    options = {**SHORT, 'train_cfg.max_epochs': args.epochs, 'param_scheduler.epochs': args.epochs}
    options['train_cfg.val_interval'] = args.epochs
    for part in ('train_dataloader', 'val_dataloader'):
        options[f'{part}.dataset.transform.input_size'] = args.size
        # In this process, whose CPU time counts.
        options |= {f'{part}.num_workers': 0, f'{part}.persistent_workers': False}
    args = copy.copy(args)
    args.cfg_options = {**options, **(args.cfg_options or {})}
    config = with_own_data(config_of(args), args)
    config.work_dir = f'{config.work_dir}/seed_{args.seed}'
    config.randomness = {'seed': args.seed}
    config.custom_hooks = [{'type': 'CpuTime'}]
    runner = train(config)
    top1 = runner.message_hub.log_scalars['val/top1'].current()
    return {'CPU minutes': sum(cpu_times(runner)) / 60, 'top-1': top1}


def train_detector(args: argparse.Namespace) -> dict[str, float]:
    """Train a detector for the steps; returns its accuracy and CPU minutes."""
    start = {'type': 'Pretrained', 'checkpoint': args.backbone} if args.backbone else None
    name = 'pretrained' if args.backbone else 'random'
    runner = run(args, name, {'model': {'backbone': {'init_cfg': start}}}, args.steps, True)
    scalars = runner.message_hub.log_scalars
    found = {name: scalars.get(f'val/{key}') for name, key in METRICS['mmdet'].items()}
    # mmdet logs none without detections.
    metrics = {name: value.current() if value else 0.0 for name, value in found.items()}
    return {'CPU minutes': sum(cpu_times(runner)) / 60, **metrics}


def table(folder: Path) -> str:
    """The results in a folder in Markdown: the mean of the seeds, and each of them."""
    rows: dict[str, list[dict[str, float]]] = {}
    for file in sorted(folder.glob('*_seed_*.json')):
        rows.setdefault(file.stem.rsplit('_seed_', 1)[0], []).append(json.loads(file.read_text()))
    lines = []
    for name, results in rows.items():
        cells = []
        for column in results[0]:
            values = [result[column] for result in results]
            digits = 1 if column in ('CPU minutes', 'top-1') else 3
            mean, *single = (f'{v:.{digits}f}' for v in (sum(values) / len(values), *values))
            cells.append(f'{mean} ({", ".join(single)})' if len(values) > 1 else mean)
        if not lines:
            lines = [f'| run | {" | ".join(results[0])} |', '|---' * (1 + len(cells)) + '|']
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Parse the command line, train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_run_arguments(parser)
    add_own_data_arguments(parser)
    parser.add_argument('--epochs', type=int, default=2, help='of a classifier (2)')
    parser.add_argument('--size', type=int, default=160, help='of the images of a classifier (160)')
    parser.add_argument('--steps', type=int, default=1158, help='of a detector (1158)')
    parser.add_argument('--backbone', metavar='CHECKPOINT', help='that a detector starts from')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--results', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument('--page', type=Path, help='whose table is replaced')
    args = parser.parse_args()
    one = train_classifier if is_classifier(config_of(args)) else train_detector
    name = Path(args.config).stem + ('_pretrained' if args.backbone else '')
    for seed in args.seeds:
        file = Path(args.results, f'{name}_seed_{seed}.json')
        if not file.exists():
            args.seed = seed
            write_whole(file, json.dumps(one(args)))
        print(f'{file}: {file.read_text()}', flush=True)
    made = table(Path(args.results))
    print(made)
    if args.page:
        mark = f'<!-- benchmarks/pretraining.py {Path(args.results).name} -->\n'
        before, rest = args.page.read_text().split(mark)
        after = rest[rest.index('<!-- end -->') :]
        write_whole(args.page, f'{before}{mark}{made}\n{after}')


if __name__ == '__main__':
    main()
