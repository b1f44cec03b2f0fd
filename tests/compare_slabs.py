"""Deploy form at 800x1344 with wide maps in slabs and without: python tests/compare_slabs.py"""

import argparse

import torch
from compare_speed import VARIANTS, ours
from rich.console import Console
from rich.table import Table

from lightvit_mm.benchmark.profiling import peak_memory
from lightvit_mm.benchmark.timing import alternate, summarise
from lightvit_mm.deploy import slabs
from lightvit_mm.engine.memory import keep_freed_memory

# Up to so many bytes a map stays whole.
WIDEST = {'whole': 2**60, 'slabs': slabs.WIDEST}


def main() -> None:
    """Print a row a family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--keep-memory', action='store_true', help='as the tools do')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    image = torch.randn(1, 3, 800, 1344).to(memory_format=torch.channels_last)
    table = Table('family', 'whole ms', 'slabs ms', 'time, 95 %', 'whole MB', 'slabs MB', 'memory')
    for family in VARIANTS:
        model = ours(family).eval().switch_to_deploy()

        def call(form: str, model: torch.nn.Module = model) -> object:
            slabs.WIDEST = WIDEST[form]
            return model(image)

        with torch.inference_mode():
            calls = {form: lambda form=form, call=call: call(form) for form in WIDEST}
            whole, pieces = summarise(alternate(calls, 15, 3, pause=0.01), 'whole')
            low, high = pieces.interval
            peaks = [peak_memory(calls[form], 'cpu') for form in WIDEST]
        table.add_row(
            family,
            *(f'{1e3 * timing.median:.1f}' for timing in (whole, pieces)),
            f'{1 / pieces.ratio:.2f} ({1 / high:.2f} to {1 / low:.2f})',
            *(f'{peak / 1e6:.0f}' for peak in peaks),
            f'{peaks[1] / peaks[0]:.2f}',
        )
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
