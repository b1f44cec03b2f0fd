"""Draw published accuracy over measured latency: python tools/choose.py LATENCY.json"""

import argparse
import json
from pathlib import Path

from lightvit_mm.errors import user_errors
from lightvit_mm.reproduction.choosing import as_page, chosen, draw, latencies
from lightvit_mm.reproduction.published import read_published

PUBLISHED, PAGE, PICTURE = 'configs/published.yml', 'docs/choose.md', 'docs/images/choose.png'


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('latency', help='what tools/benchmark.py --json has written')
    benchmark = json.loads(Path(parser.parse_args().latency).read_text())
    groups = chosen(read_published(PUBLISHED), latencies(benchmark))
    draw(groups).savefig(PICTURE, dpi=100)
    Path(PAGE).write_text(as_page(groups, benchmark))
    print(f'{sum(map(len, groups.values()))} published rows: {PAGE}, {PICTURE}')


if __name__ == '__main__':
    with user_errors():
        main()
