"""The package against the originals: python benchmarks/compare_speed.py [--train] [--openvino]

The originals (benchmarks/originals/) have the same weights, are fused where their authors' code can
fuse, and run in both memory layouts; the fastest is the baseline of each table. In channels_last
their levels are made contiguous at the end, as ours are: mmcv's RoIAlign reads them wrongly
otherwise. With --onnxruntime and --openvino, ours and theirs are
exported in the same way and run there. Outputs are compared before anything is timed, and
everything alternates in one process.
"""

import argparse
import copy

import originals
import torch
from rich.console import Console
from torch import nn

from lightvit_mm.backbones import EdgeViT, EfficientViT, MobileViT, PyramidBackbone, RepViT
from lightvit_mm.benchmark.forms import OURS, RUNTIMES
from lightvit_mm.benchmark.report import as_table, machine, operator_table, write_json
from lightvit_mm.benchmark.run import Result, Settings, benchmark
from lightvit_mm.benchmark.subjects import Subject
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.export.compare import CompareMaps

VARIANTS = {
    'edgevit_s': (EdgeViT, 's'),
    'repvit_m1_1': (RepViT, 'm1_1'),
    'efficientvit_m4': (EfficientViT, 'm4'),
    'mobilevit_s': (MobileViT, 's'),
}
SIZES = {'512x512': (512, 512), '800x1344': (800, 1344)}


def original(name: str) -> nn.Module:
    """The original network of a variant, in training mode; always with the same weights."""
    family, arch = VARIANTS[name]
    torch.manual_seed(0)
    return originals.FAMILIES[family.__name__](**family.arch_settings[arch])


class ContiguousLevels(nn.Module):
    """A pyramid whose levels have the layout that mmcv needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid."""
        return tuple(level.contiguous() for level in self.network(x))


def rivals(name: str, train: bool) -> dict[str, nn.Module]:
    """The original in both memory layouts, fused for inference."""
    plain = original(name).train(train)
    plain = plain if train else originals.fuse(plain)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    return {'original': plain, 'original, channels_last': ContiguousLevels(turned)}


def ours(name: str) -> PyramidBackbone:
    """Our network with the weights of the original one."""
    family, arch = VARIANTS[name]
    model = family(arch)
    model.load_state_dict(original(name).state_dict())
    return model


def summary(result: Result) -> str:
    """The row of docs/performance.md: milliseconds of theirs and ours, and the ratio."""
    medians = {row.form: 1e3 * row.timing.median for row in result.rows}
    forms = {(row.dtype, row.how): row for row in result.rows if row.source == OURS}
    cells = [result.backbone, 'x'.join(map(str, result.shape[2:]))]
    for (_, how), row in forms.items():
        if row.dtype == 'bf16' and how not in RUNTIMES:
            continue  # the originals run in fp32 in PyTorch
        peer = f'original {row.dtype} {how}' if how in RUNTIMES else result.baseline
        ratio = medians[peer] / medians[row.form]
        cells.append(f'{medians[peer]:.1f}, {medians[row.form]:.1f}, **{ratio:.2f}**')
    return f'| {" | ".join(cells)} |'


def main() -> None:
    """Compare values, then speed."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES))
    for runtime in RUNTIMES:
        parser.add_argument(f'--{runtime}', action='store_true')
    parser.add_argument('--bf16', action='store_true', help='OpenVINO in bf16 too')
    parser.add_argument('--train', action='store_true', help='a training step of batch 2')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json', metavar='OUT')
    args = parser.parse_args()
    if args.bf16 and not args.openvino:
        parser.error('--bf16 is that of OpenVINO: give --openvino')
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as tools/train.py, test.py and predict.py do on a CPU
    settings = Settings(
        dtypes=('fp32', 'bf16') if args.bf16 else ('fp32',),
        runtimes=tuple(name for name in RUNTIMES if getattr(args, name)),
        train=args.train,
        batch=2 if args.train else 1,
        rounds=args.rounds,
        min_seconds=args.seconds,
        profile=args.profile,
    )
    console = Console(width=170)
    results = []
    for name in args.variants:
        others = rivals(name, args.train)
        if not args.train:
            image = torch.randn(1, 3, 512, 512)
            with torch.inference_mode():
                outputs = ours(name).eval().switch_to_deploy()(image)
                compare = CompareMaps(others['original'])
                levels = {f'level{i}': out.numpy() for i, out in enumerate(outputs)}
                deviation = compare(image.numpy(), levels).deviation
            print(f'{name}: deploy form deviates by {deviation:.1e} std at 512x512', flush=True)
            assert deviation < 1e-4
        for size in args.sizes:
            subject = Subject(name, lambda name=name: ours(name))
            results.append(benchmark(subject, SIZES[size], settings, others))
            console.print(as_table(results[-1]))
            if args.profile:
                console.print(operator_table(results[-1].operators))
            if args.json:
                write_json(args.json, results, 'cpu', 'python benchmarks/compare_speed.py')
    columns = ['fastest PyTorch', *settings.runtimes, *(['openvino bf16'] if args.bf16 else [])]
    print(machine('cpu'))
    print('ms of theirs, ms of ours, ratio; ' + ', '.join(columns))
    print('\n'.join(map(summary, results)))


if __name__ == '__main__':
    main()
