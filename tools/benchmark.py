"""Measure the speed of whole models and of backbones: python tools/benchmark.py CONFIG --peers"""

import argparse
import itertools
import re
import shlex
import sys

from _stack import user_errors

import torch
from rich.console import Console

from lightvit_mm.benchmark.forms import RUNTIMES
from lightvit_mm.benchmark.report import (
    as_table,
    as_whole_table,
    check_files,
    mean_ratios,
    operator_table,
    plot,
    write_json,
)
from lightvit_mm.benchmark.run import Result, Settings, benchmark
from lightvit_mm.benchmark.subjects import find_subjects
from lightvit_mm.benchmark.whole import WholeResult, benchmark_whole
from lightvit_mm.benchmark.whole_models import load_peers, load_whole, whole_tables
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.measure.limits import DTYPES

SIZES = [(512, 512), (800, 1344)]
PLOT_SIZES = [(side, side) for side in (256, 384, 512, 768, 1024, 1536, 2048)]


def size(text: str) -> tuple[int, int]:
    """Height and width from ``512`` or ``800x1344``."""
    match = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text} is neither a side (512) nor HxW (800x1344)')
    return int(match[1]), int(match[2] or match[1])


def main() -> None:
    """Parse the command line, measure, and print the tables and the files written."""
    parser = argparse.ArgumentParser(
        description='Measure the speed of whole detectors, segmentors and classifiers (CONFIG) and '
        'of backbones (BACKBONE). Configs of one size take turns in one table.'
    )
    parser.add_argument(
        'subjects',
        nargs='+',
        metavar='CONFIG|BACKBONE',
        help="a config file, or a backbone: a variant (repvit_m1_1) or a pattern ('repvit_*')",
    )
    parser.add_argument(
        '--backbone-only', action='store_true', help='of a config, measure the backbone'
    )
    parser.add_argument(
        '--peers',
        action='store_true',
        help="beside whole detectors, mmdet's own RTMDet-tiny, YOLOX-tiny and SSDLite-MobileNetV2; "
        "beside segmentors, mmseg's SegFormer-B0",
    )
    parser.add_argument(
        '--checkpoint', help='weights of the whole model, given one CONFIG (random without)'
    )
    parser.add_argument('--image', help='photo for whole models (a random image without)')
    parser.add_argument(
        '--against', choices=['timm'], help="compare a backbone with timm's of the same name"
    )
    parser.add_argument(
        '--sizes', nargs='+', type=size, metavar='HxW',
        help="input sizes (for whole models the config's; for backbones 512 and 800x1344, with "
        '--plot squares from 256 to 2048)',
    )  # fmt: skip
    parser.add_argument(
        '--dtype', nargs='+', choices=list(DTYPES), default=['fp32'], help='16 bits by autocast'
    )
    parser.add_argument('--compile', action='store_true', help='also through torch.compile')
    parser.add_argument('--onnxruntime', action='store_true', help='also in onnxruntime')
    parser.add_argument(
        '--openvino', action='store_true', help='also in OpenVINO, with --dtype bf16 in bf16 too'
    )
    parser.add_argument(
        '--files', nargs='+', default=(), metavar='FILE',
        help='also these files of tools/export.py, given one CONFIG',
    )  # fmt: skip
    parser.add_argument(
        '--train', action='store_true', help='forward and backward instead of inference'
    )
    parser.add_argument('--batch', type=int, help='images per step (1; with --train 2)')
    parser.add_argument('--threads', type=int, help="CPU threads (torch's choice)")
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 (cpu)')
    parser.add_argument('--rounds', type=int, default=10, help='least number of rounds (10)')
    parser.add_argument(
        '--seconds', type=float, default=5.0, help='least seconds of timed calls per table (5)'
    )
    parser.add_argument(
        '--profile', action='store_true', help='also list the operators of our first form'
    )
    parser.add_argument('--json', metavar='OUT', help='write all measurements to this file')
    parser.add_argument('--plot', metavar='PNG', help='draw latency over input size')
    args = parser.parse_args()
    configs = [name for name in args.subjects if name.endswith('.py') and not args.backbone_only]
    backbones = [name for name in args.subjects if name not in configs]
    sizes = args.sizes or (PLOT_SIZES if args.plot else SIZES)
    if args.plot and len(sizes) < 2:
        parser.error('--plot needs two or more --sizes')
    for name in ('batch', 'threads', 'rounds'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name} must be positive')
    if configs and (args.train or args.batch or args.plot or args.against):
        parser.error(
            '--train, --batch, --plot and --against measure backbones: give --backbone-only'
        )
    if not configs and (args.peers or args.checkpoint or args.image):
        parser.error('--peers, --checkpoint and --image are for whole models: give a CONFIG')
    if args.files and (len(configs) != 1 or args.device != 'cpu'):
        parser.error('--files are those of one model, on the CPU: give one CONFIG')
    if args.checkpoint and len(configs) > 1:
        parser.error('--checkpoint holds the weights of one model: give one CONFIG')
    if args.threads:
        torch.set_num_threads(args.threads)
    program, *words = sys.argv
    program = program if program.startswith('lightvit-mm') else f'python {shlex.quote(program)}'
    command = f'{program} {shlex.join(words)}'
    with user_errors():
        check_files(args.json, args.plot)
        subjects = find_subjects(backbones)
        tables = whole_tables(configs, args.sizes)
        settings = Settings(
            dtypes=tuple(dict.fromkeys(args.dtype)),
            timm=args.against == 'timm',
            compile=args.compile,
            runtimes=tuple(name for name in RUNTIMES if getattr(args, name)),
            files=tuple(args.files),
            train=args.train,
            batch=args.batch or (2 if args.train else 1),
            device=args.device,
            rounds=args.rounds,
            min_seconds=args.seconds,
            profile=args.profile,
        )
        if torch.device(args.device).type == 'cpu':
            keep_freed_memory()  # as train.py, test.py and predict.py do
            print(f'{torch.get_num_threads()} threads')
        console = Console()
        if not console.is_terminal:
            console.width = 180
        results: list[Result | WholeResult] = []
        todo = list(itertools.product(subjects, sizes))
        total = len(tables) + len(todo)

        def measured(result: Result | WholeResult) -> None:
            results.append(result)
            if args.json:
                write_json(args.json, results, args.device, command)

        for number, (shape, files) in enumerate(tables.items(), 1):
            print(f'[{number}/{total}] measuring at {"x".join(map(str, shape))}:', flush=True)
            models = []
            for file in files:
                print(f'  {file}', flush=True)
                models.append(load_whole(file, checkpoint=args.checkpoint, device=args.device))
            if args.peers:
                models += load_peers([each.config.default_scope for each in models], args.device)
            whole = benchmark_whole(models, shape, settings, args.image)
            measured(whole)
            console.print(as_whole_table(whole))
            for name, operators in whole.operators.items():
                console.print(operator_table(operators, name))
        for number, (subject, (height, width)) in enumerate(todo, len(tables) + 1):
            # A progress bar would be redrawn during the measurement.
            print(f'[{number}/{total}] measuring {subject.name}, {height}x{width}', flush=True)
            single = benchmark(subject, (height, width), settings)
            measured(single)
            console.print(as_table(single))
            if args.profile:
                console.print(operator_table(single.operators))
        singles = [result for result in results if isinstance(result, Result)]
        for form, (ratio, count) in mean_ratios(singles).items():
            print(f'{form}: geometric mean of {count} ratios to timm {ratio:.2f}')
        if args.plot:
            step = 'training step' if args.train else 'inference'
            title = f'{step}, batch {settings.batch}, {" ".join(args.dtype[:1])}, {args.device}'
            for label, power in plot(args.plot, singles, title).items():
                print(f'{label}: latency grows with side^{power:.2f}')
        made = [file for file in (args.json, args.plot) if file]
        print(f'{len(results)} tables{"; wrote " if made else ""}{", ".join(made)}')


if __name__ == '__main__':
    main()
