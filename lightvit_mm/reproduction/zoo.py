"""The model zoo: the size of every config's model, as OpenMMLab's metafile and as pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.checkpoints.weights import WEIGHTS, Weights
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
    'rtmdet': (640, 640),
    'rtmdet_ins': (640, 640),
    'light': (640, 640),
    'in1k': (224, 224),
}
DATASETS = {
    'coco': 'COCO 2017',
    'ade20k': 'ADE20K',
    'voc12aug': 'PASCAL VOC 2012, augmented',
    'in1k': 'ImageNet-1k',
}
CLASSIFIER = 'classifier'
HEADS = {
    'retinanet': 'RetinaNet',
    'mask_rcnn': 'Mask R-CNN',
    'light': 'GFL',
    'ssdlite': 'SSDLite',
    'rtmdet': 'RTMDet',
    'semantic_fpn': 'Semantic FPN',
    'segformer': 'SegFormer',
    'lraspp': 'LRASPP',
    'upernet': 'UperNet',
    'deeplabv3': 'DeepLabv3',
    'rtmdet_ins': 'RTMDet-Ins',
    CLASSIFIER: 'classifier',
}
TASKS = {
    'retinanet': 'Object Detection',
    'mask_rcnn': 'Instance Segmentation',
    'light': 'Object Detection',
    CLASSIFIER: 'Image Classification',
    'ssdlite': 'Object Detection',
    'rtmdet': 'Object Detection',
    'rtmdet_ins': 'Instance Segmentation',
}
INTRODUCTION = """# Model zoo

Written by `python tools/model_zoo.py`; do not edit. Parameters (in millions, of the training form)
and multiply-accumulates are measured here, at 800 x 1344 for COCO (light, RTMDet and
RTMDet-Ins: 640 x 640, SSDLite: 320 x 320), 512 x 512 for segmentors and 224 x 224 for classifiers
(`_in1k`, MobileViT's 256 x 256); for Mask R-CNN and RTMDet-Ins, without the parts that run once per
proposal or detection. Published results, box
and mask AP or mIoU in percent, are others', from `configs/published.yml`; *recalled* ones are from
memory and not verified. The weights are those that a config begins with ([weights.md](weights.md)).
**We have not reproduced any of them yet**: that needs COCO or ADE20K, and GPUs.
`python tools/reproduce.py --check` compares each config with the published recipe.

## RTMDet with its own backbone

| | M | GMACs at 640 x 640 | published | source |
|---|---|---|---|---|
| RTMDet-tiny | 4.8 | 8.1 | bbox_mAP 41.1 | mmdetection, configs/rtmdet/README.md |
| RTMDet-s | 8.89 | 14.8 | bbox_mAP 44.6 | mmdetection, configs/rtmdet/README.md |
| RTMDet-Ins-tiny | 5.64 | 11.9 | bbox_mAP 40.5, segm_mAP 35.4 | mmdetection, rtmdet/metafile.yml |
| RTMDet-Ins-s | 10.18 | 21.5 | bbox_mAP 44.0, segm_mAP 38.7 | mmdetection, rtmdet/metafile.yml |

Those four have CSPNeXt backbones; the sizes of the last two are measured here, from mmdet's
configs. The `rtmdet_*` and `rtmdet_ins_*` configs below put their necks and heads on other
backbones, with which nothing has been published."""
WEIGHTS_INTRODUCTION = """# Published weights

Written by `python tools/model_zoo.py`; do not edit. These files were trained on ImageNet-1k by
others. Every one of them loads into any config by its address, completely or not at all, and so
does a file in the same layout from elsewhere:

```python
backbone = dict(
    type='RepViT',
    arch='m1_1',
    init_cfg=dict(type='Pretrained', checkpoint='timm://repvit_m1_1.dist_450e_in1k'),
)
```

The address is the link in the first column, or what begins with `timm://` there. Of each model, the
first weights are those that our configs begin with. In Python,
`lightvit_mm.list_weights('repvit*')` returns the same; see [backbones.md](backbones.md).

- Top-1 is what the publisher states, in percent; it was not measured here
  ([pretrain.md](pretrain.md) has the command). Its input is given as
  channels and scale of the pixels, which detectors need too, then the shorter side, the square in
  its middle, and the interpolation.
- EdgeViT's authors released no weights. EasyCV's are third-party weights, trained with a copy of
  the authors' code and another recipe. That copy has an eps of 1e-8 in LayerNorm where the authors'
  code and ours have 1e-6, a difference like rounding: with made-up weights, our outputs are within
  1e-4 standard deviations of that copy's (`python -m pytest tests/checkpoints/test_easycv.py`).
- timm's and mmpretrain's weights are conversions of the authors' files.
- "(code)" means that the licence is stated for the repository; nothing was found about the weights.
  Apple's own licence is
  [LICENSE of ml-cvnets](https://github.com/apple/ml-cvnets/blob/main/LICENSE); whether it covers
  the weights was asked in [#88](https://github.com/apple/ml-cvnets/issues/88), without an answer.
  RepViT's authors confirmed theirs for all code in
  [#27](https://github.com/THU-MIG/RepViT/issues/27).
- No publisher gives whole SHA-256 sums. Where a name ends in digits of one, as mmpretrain's do, the
  download is checked against them."""
HEADER = (
    '# Made by tools/model_zoo.py out of the configs. Parameters of the training form; GMACs of\n'
    '# one image of that height and width, without what depends on the number of proposals.\n'
)


def split_name(name: str) -> tuple[str, str, str, str]:
    """Split the name of a config into head, family, arch and data set."""
    variant, is_classifier, _ = name.partition('_in1k')
    if is_classifier:
        family = next(family for family in FAMILIES if variant.startswith(f'{family}_'))
        return CLASSIFIER, family, variant.removeprefix(f'{family}_'), 'in1k'
    head = max((head for head in HEADS if name.startswith(f'{head}_')), key=len)
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
    if head == CLASSIFIER:  # MobileViT's are larger
        height = width = config.val_dataloader.dataset.transform.input_size
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
        lines += ['| config | M | GMACs | weights | published | source | reproduced by us |']
        lines += ['|---|---|---|---|---|---|---|']
        for name, model in models.items():
            if split_name(name)[1] == family:
                lines.append(_line(name, model, published.get(name)))
    return '\n'.join(lines) + '\n'


def weights_page() -> str:
    """The page of the published weights in Markdown."""
    lines = [WEIGHTS_INTRODUCTION]
    for family, described in FAMILIES.items():
        known = [weights for weights in WEIGHTS if weights.model.startswith(f'{family}_')]
        lines += ['', f'## {described.name}', '']
        if not known:
            lines.append('None were published.')
            continue
        lines += ['| weights | top-1 | its input | source | licence | layout |']
        lines += ['|---|---|---|---|---|---|']
        lines += [_weights_line(weights) for weights in known]
    return '\n'.join(lines) + '\n'


def _weights_line(weights: Weights) -> str:
    release = weights.release
    top1 = '' if weights.top1 is None else f'{weights.top1}'
    top1 += f' (paper: {weights.paper_top1})' if weights.paper_top1 else ''
    scale = 'ImageNet mean' if any(release.mean) else 'in [0, 1]'
    stated = 'code and weights' if release.covers_weights else 'code'
    is_link = weights.address.startswith('https://')
    cells = (
        f'[{weights.name}]({weights.address})'
        if is_link
        else f'{weights.name}: `{weights.address}`',
        top1,
        f'{release.channels} {scale}, {release.resize} to {release.crop}, {release.interpolation}',
        f'[{release.source}]({release.url})' + (', third party' if release.third_party else ''),
        f'{release.licence} ({stated})',
        weights.layout,
    )
    return f'| {" | ".join(cells)} |'


def _initial_weights(name: str) -> str:
    head, family, arch, _ = split_name(name)
    if head == CLASSIFIER:
        return 'random'
    weights = next((w for w in WEIGHTS if w.model == f'{family}_{arch}'), None)
    if weights is None:
        return 'none published'
    return weights.tag + (' (third party)' if weights.release.third_party else '')


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
        _initial_weights(name),
        figures,
        source,
        ', '.join(f'{metric} {value}' for metric, value in ours.items()),
    )
    return f'| {" | ".join(cells)} |'
