"""The model zoo: the size of every config's model, as OpenMMLab's metafile and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.engine.configs import load_config
from lightvit_mm.files import write_whole
from lightvit_mm.measure.complexity import count_macs, count_parameters, inference_form
from lightvit_mm.reproduction.published import Row

# Height and width at which to count: the usual test size of the data set, or of the head.
INPUTS = {
    'coco': (800, 1344),
    'ade20k': (512, 512),
    'voc12aug': (512, 512),
    'ssdlite': (320, 320),
}
DATASETS = {'coco': 'COCO 2017', 'ade20k': 'ADE20K', 'voc12aug': 'PASCAL VOC 2012, augmented'}
HEADS = {
    'retinanet': 'RetinaNet',
    'mask_rcnn': 'Mask R-CNN',
    'ssdlite': 'SSDLite',
    'semantic_fpn': 'Semantic FPN',
    'segformer': 'SegFormer',
    'upernet': 'UperNet',
    'deeplabv3': 'DeepLabv3',
}
TASKS = {
    'retinanet': 'Object Detection',
    'mask_rcnn': 'Instance Segmentation',
    'ssdlite': 'Object Detection',
}
INTRODUCTION = """# Model zoo

Written by `python tools/model_zoo.py`; do not edit. Parameters (in millions, of the training form)
and multiply-accumulates are measured here, at 800 x 1344 for COCO (SSDLite: 320 x 320) and 512 x
512 otherwise; for Mask R-CNN, without the parts that run once per proposal. Published results, box
and mask AP or mIoU in percent, are others', from `configs/published.yml`; *recalled* ones are from
memory and not verified.
**We have not reproduced any of them yet**: that needs COCO or ADE20K, and GPUs.
`python tools/reproduce.py --check` compares each config with the published recipe."""
HEADER = (
    '# Made by tools/model_zoo.py out of the configs. Parameters of the training form; GMACs of\n'
    '# one image of that height and width, without what depends on the number of proposals.\n'
)


def split_name(name: str) -> tuple[str, str, str, str]:
    """Split the name of a config into head, family, arch and data set."""
    head = next(head for head in HEADS if name.startswith(f'{head}_'))
    rest, dataset = name.removeprefix(f'{head}_').rsplit('_', 1)
    family = next(family for family in FAMILIES if rest.startswith(f'{family}_'))
    return head, family, rest.removeprefix(f'{family}_'), dataset


def zoo_configs(configs: Path) -> list[Path]:
    """List the configs of the zoo: all except those for the embedded data set."""
    files = [file for file in configs.glob('*.py') if not file.stem.endswith('_shapes')]
    return sorted(files)


def measure(file: Path) -> dict[str, Any]:
    """Build and measure the model of a config; returns its entry in the metafile."""
    head, family, _, dataset = split_name(file.stem)
    config = load_config(str(file))
    init_default_scope(config.default_scope)
    model: nn.Module = MODELS.build(config.model)
    height, width = INPUTS.get(head) or INPUTS[dataset]
    return {
        'Name': file.stem,
        'In Collection': FAMILIES[family].name,
        'Config': f'configs/{file.name}',
        'Metadata': {
            'Parameters': count_parameters(model),
            'GMACs': round(count_macs(inference_form(model), height, width) / 1e9, 2),
            'Input': [height, width],
            'Training Data': DATASETS[dataset],
        },
        # To be filled in by hand once it has been reproduced.
        'Results': [{'Task': TASKS.get(head, 'Semantic Segmentation'), 'Metrics': None}],
    }


def write_metafile(file: Path, models: Iterable[Mapping[str, Any]]) -> None:
    """Write the entries and the papers that they belong to."""
    collections = [
        {'Name': family.name, 'Paper': {'Title': family.paper, 'URL': family.url}}
        for family in FAMILIES.values()
    ]
    heads, families = list(HEADS), list(FAMILIES)

    def order(model: Mapping[str, Any]) -> tuple[int, int, int]:
        head, family, _, _ = split_name(model['Name'])
        return families.index(family), heads.index(head), model['Metadata']['Parameters']

    content = {'Collections': collections, 'Models': sorted(models, key=order)}
    write_whole(file, HEADER + yaml.safe_dump(content, sort_keys=False, width=98))


def as_page(metafile: Mapping[str, Any], rows: Iterable[Row]) -> str:
    """The page of the zoo in Markdown."""
    published = {row.config: row for row in rows}
    models = {model['Name']: model for model in metafile['Models']}
    lines = [INTRODUCTION]
    for family, described in FAMILIES.items():
        lines += ['', f'## [{described.name}]({described.url})', '']
        lines += ['| config | M | GMACs | published | source | reproduced by us |']
        lines += ['|---|---|---|---|---|---|']
        for name, model in models.items():
            if split_name(name)[1] == family:
                lines.append(_line(name, model, published.get(name)))
    return '\n'.join(lines) + '\n'


def _line(name: str, model: Mapping[str, Any], row: Row | None) -> str:
    metadata = model['Metadata']
    figures = source = ''
    if row:
        figures = ', '.join(f'{metric} {value}' for metric, value in row.published.items())
        source = row.source
        source += ' (third party)' if row.third_party else ''
        source += ' (*recalled*)' if row.confidence == 'recalled' else ''
    ours = model['Results'][0]['Metrics'] or {}
    cells = (
        f'[{name}](../{model["Config"]})',
        f'{metadata["Parameters"] / 1e6:.3f}',
        f'{metadata["GMACs"]:.1f}',
        figures,
        source,
        ', '.join(f'{metric} {value}' for metric, value in ours.items()),
    )
    return f'| {" | ".join(cells)} |'
