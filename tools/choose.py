"""Draw published accuracy over measured latency: python tools/choose.py LATENCY.json"""

import argparse
import json
from pathlib import Path

from _stack import user_errors

from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file, write_whole
from lightvit_mm.reproduction.choosing import as_page, chosen, draw, latencies
from lightvit_mm.reproduction.published import read_published

PUBLISHED, PAGE, PICTURE = 'configs/published.yml', 'docs/choose.md', 'docs/images/choose.png'


def main() -> None:
    """Read the latencies, then write the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('latency', help='JSON file written by tools/benchmark.py --json')
    file = parser.parse_args().latency
    try:
        benchmark = json.loads(Path(file).read_text())
        measured = latencies(benchmark)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f'{file} is not a file of tools/benchmark.py --json: {type(error).__name__}: {error}'
        ) from error
    groups = chosen(read_published(PUBLISHED), measured)
    with whole_file(PICTURE) as part:
        draw(groups).savefig(part, format='png', dpi=100)
    write_whole(PAGE, as_page(groups, benchmark))
    print(f'{sum(map(len, groups.values()))} published rows: {PAGE}, {PICTURE}')


if __name__ == '__main__':
    with user_errors():
        main()
