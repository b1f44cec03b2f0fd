"""The checks of tools/gpu_check.py: whether a device computes what the CPU computes."""

from __future__ import annotations

import copy
import importlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from lightvit_mm.benchmark.report import as_table, check_files, machine, write_json
from lightvit_mm.benchmark.run import Settings, Size, benchmark
from lightvit_mm.benchmark.subjects import Subject, find_subjects, variants
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError
from lightvit_mm.measure.limits import DTYPES, tf32
from lightvit_mm.shapes.dataset import make_shapes
from lightvit_mm.timm_import import import_timm

# Outputs: largest difference in standard deviations of the level. Gradients: norm of the
# difference over the norm.
FORWARD, GRADIENT = 1e-4, 1e-3
# Root mean square of the difference, in standard deviations of the level.
AUTOCAST = {'bf16': 0.1, 'fp16': 0.02}
DETECTOR = 'configs/retinanet_edgevit_xxs_shapes.py'


Levels = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what was compared.
        value: the deviation.
        limit: the largest deviation allowed.
    """

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the limit; NaN is not."""
        return self.value <= self.limit


def check_backbone(
    subject: Subject, device: str, size: Size, compiler: str | None = None
) -> Iterator[Check]:
    """Compare a backbone on a device with double precision on the CPU.

    The limits are `FORWARD` and `GRADIENT`, or four times the deviation of the CPU's own single
    precision where that is larger. TF32 is off.

    Args:
        subject: the backbone.
        device: the device to check.
        size: height and width of the two images.
        compiler: backend for torch.compile, whose output is compared too; None for none.
    """
    torch.manual_seed(0)
    model: Any = subject.build().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    exact, on_cpu = copy.deepcopy(model).double(), copy.deepcopy(model)
    x = torch.randn(2, 3, *size)
    image = x.to(device)
    model.to(device)

    def compare(form: str, outputs: Levels, own: Levels, expected: Levels) -> Check:
        limit = max(FORWARD, 4 * _largest(own, expected))
        return Check(f'{subject.name} {form}', _largest(outputs, expected), limit)

    with tf32(False, False):
        expected, own, outputs = exact(x.double()), on_cpu(x), model(image)
        yield compare('training form', outputs, own, expected)
        for levels in (expected, own, outputs):
            # The mean itself would have no gradient after a final norm.
            sum(level.square().mean() for level in levels).backward()
        limit = max(GRADIENT, 4 * _gradient_error(on_cpu, exact))
        yield Check(f'{subject.name} gradients', _gradient_error(model, exact), limit)
        with torch.no_grad():
            expected = exact.eval()(x.double())
            own = on_cpu.eval().switch_to_deploy()(x)
            deployed = model.eval().switch_to_deploy()
            yield compare('deploy form', deployed(image), own, expected)
            channels_last = image.to(memory_format=torch.channels_last)
            yield compare('channels_last', deployed(channels_last), own, expected)
            for dtype, bound in AUTOCAST.items():
                with torch.autocast(torch.device(device).type, DTYPES[dtype]):
                    outputs = deployed(image)
                yield Check(f'{subject.name} autocast {dtype}', _rms(outputs, expected), bound)
            if compiler:
                compiled = torch.compile(deployed, backend=compiler, dynamic=False)
                yield compare('compiled', compiled(image), own, expected)


def train_detector(work_dir: str, images: int, epochs: int) -> tuple[list[float], float]:
    """Train and evaluate the quickstart's RetinaNet on generated images.

    mmengine chooses the device: a GPU if there is one.

    Args:
        work_dir: folder for the checkpoint and the log.
        images: number of training images; a tenth as many are evaluated.
        epochs: number of epochs.

    Returns:
        The loss of each iteration, and the final box AP from 0 to 1.

    Raises:
        UserError: mmdet or mmcv's compiled operators are missing.
    """
    try:
        importlib.import_module('mmcv.ops')
        importlib.import_module('mmdet')
    except ImportError as error:
        raise UserError(
            f'no detector can be trained here ({error}): bash tools/setup.sh'
        ) from error

    options = {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.0.end': min(50, epochs * images // 16),
        'param_scheduler.1.end': epochs,
        # After so short a training, no box would pass the usual threshold.
        'model.test_cfg.score_thr': 0.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, 'shapes')
        make_shapes(data, num_train=images, num_val=max(images // 10, 1))
        runner = train(load_config(DETECTOR, options, str(data), work_dir))
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    return list(losses), float(runner.message_hub.get_scalar('val/coco/bbox_mAP').current())


def check_device(device: str, quick: bool, work_dir: str) -> list[Check]:
    """Run every check and benchmark, and print each result as soon as it is known.

    Args:
        device: the device to check.
        quick: only see whether the checks themselves run: the smallest variant of each family at
            a tiny size, compiled without code generation.
        work_dir: folder for ``benchmark_*.json`` and the training of a detector.

    Returns:
        All checks, passed or failed.

    Raises:
        UserError: ``work_dir`` cannot be written.
    """
    for mode in ('inference', 'training'):
        check_files(str(Path(work_dir, f'benchmark_{mode}.json')), None)
    console = Console(width=160)
    console.print(machine(device))
    families = {type(subject.build()): subject for subject in reversed(variants().values())}
    smallest = list(reversed(families.values()))
    checks: list[Check] = []

    def add(check: Check) -> None:
        checks.append(check)
        verdict = 'ok' if check.passed else 'FAILED'
        print(f'{verdict:6} {check.name}: {check.value:.1e}, at most {check.limit:.0e}', flush=True)

    for subject in smallest if quick else variants().values():
        compiler = ('aot_eager' if quick else 'inductor') if subject in smallest else None
        for check in check_backbone(subject, device, (64, 96) if quick else (224, 288), compiler):
            add(check)
    _benchmarks(device, quick, Path(work_dir), console)
    try:
        losses, precision = train_detector(
            str(Path(work_dir, 'retinanet')), 64 if quick else 2400, 2 if quick else 4
        )
    except UserError as error:
        print(f'skipped: {error}')
    else:
        part = max(len(losses) // 4, 1)
        fell = sum(losses[-part:]) / sum(losses[:part])
        add(Check('RetinaNet, last quarter of the losses over the first', fell, 1.0))
        print(f'RetinaNet: box AP {precision:.3f}')
    return checks


def _benchmarks(device: str, quick: bool, folder: Path, console: Console) -> None:
    """Measure inference and training of one variant of each of the four main families."""
    names = (
        ['repvit_m0_6'] if quick else ['edgevit_s', 'repvit_m1_1', 'efficientvit_m4', 'mobilevit_s']
    )
    sizes = [(64, 64)] if quick else [(512, 512), (800, 1344)]
    try:
        import_timm()
        with_timm = True
    except UserError as error:
        print(f'without timm: {error}')
        with_timm = False
    dtypes = tuple(DTYPES) if device.startswith('cuda') else ('fp32', 'bf16')
    for training in (False, True):
        settings = Settings(
            dtypes=dtypes,
            timm=with_timm,
            compile=not quick,
            train=training,
            batch=2 if training else 1,
            device=device,
            rounds=1 if quick else 10,
            min_seconds=0.0 if quick else 5.0,
        )
        results = []
        for subject, size in itertools.product(find_subjects(names), sizes):
            results.append(benchmark(subject, size, settings))
            console.print(as_table(results[-1]))
            file = folder / f'benchmark_{"training" if training else "inference"}.json'
            write_json(str(file), results, device, 'tools/gpu_check.py')
        print(f'wrote {file}')


def _largest(outputs: Levels, expected: Levels) -> float:
    return max(
        ((a.cpu().double() - b).abs().max() / b.std()).item()
        for a, b in zip(outputs, expected, strict=True)
    )


def _rms(outputs: Levels, expected: Levels) -> float:
    return max(
        ((a.cpu().double() - b).square().mean().sqrt() / b.std()).item()
        for a, b in zip(outputs, expected, strict=True)
    )


def _gradient_error(model: nn.Module, reference: nn.Module) -> float:
    gradients, expected = (
        torch.cat([_gradient(parameter) for parameter in each.parameters()])
        for each in (model, reference)
    )
    return ((gradients - expected).norm() / expected.norm()).item()


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.cpu().double().flatten()
