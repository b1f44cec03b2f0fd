"""Measure every config, and write the model zoo and its weights: python tools/model_zoo.py"""

import argparse
from pathlib import Path

from _stack import user_errors

import yaml
from rich.progress import track

from lightvit_mm.checkpoints.weights import WEIGHTS
from lightvit_mm.files import write_whole
from lightvit_mm.reproduction.published import read_published
from lightvit_mm.reproduction.zoo import as_page, measure, weights_page, write_metafile, zoo_configs

CONFIGS, PAGE, WEIGHTS_PAGE = Path('configs'), Path('docs/model_zoo.md'), Path('docs/weights.md')
METAFILE = CONFIGS / 'metafile.yml'


def main() -> None:
    """Measure the configs, keep the reproduced results of the old metafile, and write."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    models = [measure(file) for file in track(zoo_configs(CONFIGS), 'measuring')]
    if METAFILE.is_file():
        before = {m['Name']: m for m in yaml.safe_load(METAFILE.read_text())['Models']}
        for model in models:
            model['Results'] = before.get(model['Name'], model)['Results']
    write_metafile(METAFILE, models)
    page = as_page(yaml.safe_load(METAFILE.read_text()), read_published(CONFIGS / 'published.yml'))
    write_whole(PAGE, page)
    write_whole(WEIGHTS_PAGE, weights_page())
    print(f'{len(models)} models: {METAFILE}, {PAGE}; {len(WEIGHTS)} weights: {WEIGHTS_PAGE}')


if __name__ == '__main__':
    with user_errors():
        main()
