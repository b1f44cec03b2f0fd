"""What can be exported to which format: python benchmarks/export_formats.py --image PHOTO

Every row is a real export of a model with random weights: the smallest variant of each family with
the heads of two detectors and of two segmentors, and every head on one family. Its file is run and
compared with PyTorch, on random images and on the photo, as tools/export.py does. The table in
docs/deploy.md is replaced by the result.
"""

import argparse
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lightvit_mm.benchmark.whole_models import load_whole, normalised, read_image, set_candidates
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export_subject
from lightvit_mm.export.formats import FORMATS
from lightvit_mm.export.subject import whole_subject
from lightvit_mm.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/deploy.md'
MARKS = '<!-- benchmarks/export_formats.py -->\n', '<!-- end -->\n'
SIZE = (192, 256)  # multiples of 64, which RTMDet needs on EfficientViT
SMALLEST = {
    'edgevit_xxs': 'EdgeViT',
    'repvit_m0_6': 'RepViT',
    'efficientvit_m0': 'EfficientViT',
    'mobilevit_xxs': 'MobileViT',
    'shuffle_swin_extra_tiny': 'ShuffleSwin',
    'shuffle_deit_tiny': 'ShuffleDeiT',
    'shuffle_t2t_vit_7': 'ShuffleT2TViT',
}
HEADS = {
    'retinanet': 'RetinaNet',
    'light': 'light detector',
    'rtmdet': 'RTMDet',
    'ssdlite': 'SSDLite',
    'mask_rcnn': 'Mask R-CNN',
    'semantic_fpn': 'Semantic FPN',
    'segformer': 'SegFormer',
    'lraspp': 'LRASPP',
    'upernet': 'UPerNet',
    'deeplabv3': 'DeepLabv3',
}


def rows() -> dict[str, tuple[str, str]]:
    """The configs to export, each with its family and head."""
    found = {}
    for head, what in HEADS.items():
        for arch, family in SMALLEST.items():
            files = sorted((ROOT / 'configs').glob(f'{head}_{arch}_*.py'))
            files = [file for file in files if not file.stem.endswith('shapes')]
            everywhere = head in ('retinanet', 'rtmdet', 'semantic_fpn', 'segformer')
            only_one = not any((ROOT / 'configs').glob(f'{head}_edgevit_xxs_*.py'))
            if files and (everywhere or only_one or family == 'EdgeViT'):
                found[files[0].stem] = (family, what)
    return found


def export_all(
    name: str, photo: str, kept: dict[str, str], suffixes: Sequence[str]
) -> dict[str, str]:
    """Export the model of a config to these formats; the largest deviations, or why not.

    Others, and formats whose packages are not installed here keep what another environment found.
    """
    image = read_image(photo, SIZE)
    whole = load_whole(str(ROOT / f'configs/{name}.py'))
    if whole.is_detector:
        head = getattr(whole.model, 'bbox_head', None)
        if hasattr(head, 'rtm_reg'):
            # With random weights the sides of RTMDet's boxes are around 0, and can all be negative.
            for layer in head.rtm_reg:
                torch.nn.init.ones_(layer.bias)
        set_candidates(whole, normalised(whole, image))
    cells = dict(kept)
    for form in FORMATS:
        if form.suffix not in suffixes:
            continue
        if any(importlib.util.find_spec(package) is None for package in form.packages):
            continue
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                subject = whole_subject(
                    whole.model, whole.preprocessing, SIZE, whole.is_detector, form.nms
                )
                subject = replace(subject, pictures=[image.numpy()])
                made = export_subject(subject, Path(folder, f'model{form.suffix}'))
                cells[form.suffix] = f'{made.deviation:.0e}'
            except UserError as error:
                cells[form.suffix] = str(error).replace(folder, '')
        seconds = time.process_time() - begin
        print(f'{name} {form.suffix}: {cells[form.suffix]} ({seconds:.0f} s of CPU)', flush=True)
    return cells


def table(results: dict[str, dict[str, str]]) -> str:
    """The table in Markdown, with the reasons of refusals below it."""
    formats = [f for f in FORMATS if any(f.suffix in cells for cells in results.values())]
    suffixes = [form.suffix for form in formats]
    lines = ['| head | family | ' + ' | '.join(f'{f.name} `{f.suffix}`' for f in formats) + ' |']
    lines.append('|---' * (2 + len(suffixes)) + '|')
    reasons: dict[str, int] = {}
    for name, (family, head) in rows().items():
        if name in results:
            cells = []
            for suffix in suffixes:
                cell = results[name].get(suffix, '')
                if cell and not re.fullmatch(r'\de-\d\d', cell):
                    cell = f'no ({reasons.setdefault(cell, len(reasons) + 1)})'
                cells.append(cell)
            lines.append(f'| {head} | {family} | {" | ".join(cells)} |')
    notes = [f'{number}. {reason}' for reason, number in reasons.items()]
    return '\n'.join([*lines, *(['', *notes] if notes else []), ''])


def main() -> None:
    """Parse the command line, export, and replace the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='names of rows (all)')
    parser.add_argument('--image', required=True, metavar='PHOTO')
    choices = [form.suffix for form in FORMATS if form.runs]  # Core ML needs an Apple device
    parser.add_argument(
        '--formats', nargs='+', choices=choices, default=choices, metavar='SUFFIX', help='(all)'
    )
    parser.add_argument('--json', default='formats.json', help='keeps the rows (formats.json)')
    args = parser.parse_args()
    kept = Path(args.json)
    results = json.loads(kept.read_text()) if kept.exists() else {}
    names = args.configs or list(rows())
    for number, name in enumerate(names, 1):
        print(f'[{number}/{len(names)}] {name}', flush=True)
        torch.manual_seed(0)
        results[name] = export_all(name, args.image, results.get(name, {}), args.formats)
        write_whole(kept, json.dumps(results, indent=1))
    first, last = MARKS
    before, rest = PAGE.read_text().split(first)
    after = rest.split(last)[1]
    write_whole(PAGE, f'{before}{first}{table(results)}{last}{after}')
    print(f'{len(results)} rows in {PAGE} and {kept}')


if __name__ == '__main__':
    main()
