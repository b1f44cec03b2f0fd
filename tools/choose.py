"""Draw accuracy over the latency of whole models: python tools/choose.py LATENCY.json"""

import argparse
import json
from pathlib import Path
from typing import Any

from _stack import user_errors

from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file, write_whole
from lightvit_mm.reproduction.choosing import latencies, own_panels, published_panels, read_own
from lightvit_mm.reproduction.choosing_page import OWN, PUBLISHED, as_page, draw
from lightvit_mm.reproduction.published import read_published

ROWS, OWN_ROWS, PAGE = 'configs/published.yml', 'docs/choose.yml', 'docs/choose.md'


def read_latencies(file: str) -> dict[str, Any]:
    """The content of a file of tools/benchmark.py --json."""
    try:
        benchmark: dict[str, Any] = json.loads(Path(file).read_text())
        latencies([benchmark])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f'{file} is not a file of tools/benchmark.py --json: {type(error).__name__}: {error}'
        ) from error
    return benchmark


def main() -> None:
    """Read the latencies, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'latency', nargs='+', help='JSON files that tools/benchmark.py CONFIG... --json wrote'
    )
    benchmarks = [read_latencies(file) for file in parser.parse_args().latency]
    latency, rows = latencies(benchmarks), read_own(OWN_ROWS)
    published = published_panels(read_published(ROWS), rows['peers'], latency)
    own = own_panels(rows, latency)
    made = [PAGE]
    for file, panels, kind in ((PUBLISHED, published, 'published'), (OWN, own, 'our')):
        if panels:
            made.append(f'docs/{file}')
            with whole_file(made[-1]) as part:
                draw(panels, kind).savefig(part, format='png', dpi=100)
    write_whole(PAGE, as_page(published, own, benchmarks))
    count = sum(len(panel.points) for panel in (*published, *own))
    print(f'{count} results over the latency of {len(latency)} models: {", ".join(made)}')


if __name__ == '__main__':
    with user_errors():
        main()
