"""Attention over many tokens, torch's and ours: python tests/compare_attention.py"""

import argparse
import itertools

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional as F

from lightvit_mm.benchmark.timing import alternate, summarise
from lightvit_mm.layers.attention import attend

# (images, heads, tokens, C) of 512x512 and 800x1344: MobileViT-S in its first two transformers,
# where its four sequences count as images, and EdgeViT-S in its first stage.
SHAPES = [(4, 4, 1024, 36), (4, 4, 4200, 36), (4, 4, 1050, 48), (1, 1, 1024, 48), (1, 1, 4200, 48)]
FUNCTIONS = {'torch': F.scaled_dot_product_attention, 'ours': attend}


def compare(shape: tuple[int, int, int, int], dtype: torch.dtype, train: bool) -> list[str]:
    """One row: median milliseconds of both, the ratio with its interval."""
    batch, heads, length, dim = shape
    qkv = torch.randn(batch, length, 3, heads, dim, dtype=dtype, requires_grad=train)
    grad = torch.randn(batch, length, heads, dim, dtype=dtype).transpose(1, 2)

    def call(name: str) -> None:
        out = FUNCTIONS[name](*qkv.permute(2, 0, 3, 1, 4))
        if train:
            qkv.grad = None
            out.backward(grad)

    with torch.set_grad_enabled(train):
        seconds = alternate(
            {name: lambda name=name: call(name) for name in FUNCTIONS}, 10, 2, pause=0.01
        )
    torch_timing, timing = summarise(seconds, 'torch')
    return [
        f'{batch} x {heads} x {length} x {dim}',
        str(dtype).removeprefix('torch.'),
        'forward, backward' if train else 'forward',
        *(f'{1e3 * one.median:.1f}' for one in (torch_timing, timing)),
        '{:.2f} ({:.2f} to {:.2f})'.format(timing.ratio, *timing.interval),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    table = Table('shape', 'type', 'pass', 'torch ms', 'ours ms', 'ratio')
    rows = list(itertools.product((torch.float32, torch.bfloat16), (False, True), SHAPES))
    for dtype, train, shape in track(rows, 'attention'):
        table.add_row(*compare(shape, dtype, train))
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
