"""The tools as commands, and how they are called here: from a checkout, or from an installation."""

from __future__ import annotations

import re

from lightvit_mm import doctor

NAME = 'lightvit-mm'
# The tool that each command runs, in the order in which they are needed.
COMMANDS = {
    'make-shapes': 'make_shapes.py',
    'check-data': 'check_data.py',
    'browse-data': 'browse_data.py',
    'split-coco': 'split_coco.py',
    'convert-masks': 'convert_masks.py',
    'train': 'train.py',
    'test': 'test.py',
    'report': 'report.py',
    'predict': 'predict.py',
    'export': 'export.py',
    'benchmark': 'benchmark.py',
    'reproduce': 'reproduce.py',
}
# Scripts of a checkout in our messages, and what does the same without one.
SCRIPTS = {
    'bash tools/setup.sh': doctor.SET_UP,
    'tools/dist_train.sh': 'torchrun -m lightvit_mm train',
    'tools/slurm_train.sh': 'srun python -m lightvit_mm train',
}


def as_typed_here(text: str) -> str:
    """Replace the tools of a checkout in a message by commands, where there is no checkout."""
    if not doctor.INSTALLED:
        return text
    commands = {tool: f'{NAME} {command}' for command, tool in COMMANDS.items()}
    text = re.sub(
        r'(?:python )?\btools/(\w+\.py)\b', lambda found: commands.get(found[1], found[0]), text
    )
    for script, instead in SCRIPTS.items():
        text = text.replace(script, instead)
    return text
