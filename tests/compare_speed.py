"""The package against the originals: python tests/compare_speed.py [--train] [--dtype fp32 bf16]

The originals are those of slow_reference: fused where their authors' code can fuse, and both in
the memory layout that they come in and in channels_last, where only the first counts as theirs;
MobileViT's is timm's in channels_last. Equal weights; outputs are compared before any timing.
Everything takes turns in one process. See docs/performance.md.
"""

import argparse

import slow_reference
import torch
from conftest import largest_deviation
from rich.console import Console
from torch import nn

from lightvit_mm import backbones
from lightvit_mm.benchmark.report import as_table, mean_ratios, operator_table, write_json
from lightvit_mm.benchmark.run import Settings, benchmark
from lightvit_mm.benchmark.subjects import Subject
from lightvit_mm.engine.memory import keep_freed_memory

VARIANTS = {'EdgeViT': 's', 'RepViT': 'm1_1', 'EfficientViT': 'm4', 'MobileViT': 's'}
SIZES = [(512, 512), (800, 1344)]


def originals(family: str, train: bool) -> dict[str, nn.Module]:
    """The original network in both memory layouts, with the same weights."""
    made = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        arch = getattr(backbones, family).arch_settings[VARIANTS[family]]
        model = slow_reference.FAMILIES[family](**arch).train(train)
        model = model if train else slow_reference.fuse(model)
        name = 'original' if layout == torch.contiguous_format else 'original, channels_last'
        made[name] = model.to(memory_format=layout)
    if family == 'MobileViT':
        made = {'original': made['original, channels_last']}
    return made


def ours(family: str) -> nn.Module:
    """Our network with the weights of the original one."""
    model = getattr(backbones, family)(VARIANTS[family])
    torch.manual_seed(0)
    reference = slow_reference.FAMILIES[family](**model.arch)
    model.load_state_dict(reference.state_dict())
    return model


def main() -> None:
    """Compare values, then speed."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--families', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--dtype', nargs='+', choices=['fp32', 'bf16'], default=['fp32'])
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--onnxruntime', action='store_true')
    parser.add_argument('--train', action='store_true')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--sizes', nargs='+', type=int, default=[0, 1], help='0: 512, 1: 800x1344')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--seconds', type=float, default=5.0)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--keep-memory', action='store_true', help='as the tools do')
    parser.add_argument('--json', metavar='OUT')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    settings = Settings(
        dtypes=tuple(args.dtype),
        compile=args.compile,
        onnxruntime=args.onnxruntime,
        train=args.train,
        batch=2 if args.train else 1,
        rounds=args.rounds,
        min_seconds=args.seconds,
        profile=args.profile,
    )
    console = Console(width=170)
    results = []
    for family in args.families:
        rivals = originals(family, args.train)
        if not args.train:
            image = torch.randn(1, 3, 512, 512)
            with torch.inference_mode():
                outputs = ours(family).eval().switch_to_deploy()(image)
                deviation = largest_deviation(outputs, rivals['original'](image))
            print(f'{family}: deploy form deviates by {deviation:.1e} std at 512x512', flush=True)
            assert deviation < 1e-4
        for size in [SIZES[i] for i in args.sizes]:
            subject = Subject(f'{family} {VARIANTS[family]}', lambda family=family: ours(family))
            results.append(benchmark(subject, size, settings, rivals))
            console.print(as_table(results[-1]))
            if args.profile:
                console.print(operator_table(results[-1].operators))
            if args.json:
                write_json(args.json, results, 'cpu', 'python tests/compare_speed.py')
    for form, (ratio, count) in mean_ratios(results).items():
        print(f'{form}: geometric mean of {count} ratios {ratio:.2f}')


if __name__ == '__main__':
    main()
