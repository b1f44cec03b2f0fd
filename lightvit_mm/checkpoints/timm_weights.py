"""``timm://<model>[.<tag>]``: the weights that timm published, fetched without timm.

timm keeps each set of weights in a separate repository on the Hugging Face hub, as one
``model.safetensors``. The backbones know timm's key layouts, so this module only fetches the file.
"""

from __future__ import annotations

import os
import re
from typing import Any

from lightvit_mm.checkpoints.download import CheckpointError, fetch
from lightvit_mm.checkpoints.reading import read_checkpoint

SCHEME = 'timm://'
# The tags that timm 1.0.31 uses for names without one.
DEFAULT_TAGS = (
    (r'repvit_m[123]', 'dist_in1k'),
    (r'repvit_m\d_\d', 'dist_300e_in1k'),
    (r'efficientvit_m\d', 'r224_in1k'),
    (r'mobilevit_(xxs|xs|s)', 'cvnets_in1k'),
    (r'swin_tiny_patch4_window7_224', 'ms_in1k'),
    (r'deit_tiny_patch16_224', 'fb_in1k'),
)


def full_name(name: str) -> str:
    """The name ``<model>.<tag>`` of timm's weights, given with or without scheme and tag.

    Raises:
        CheckpointError: the name is malformed, or has no tag and no known default.
    """
    name = name.removeprefix(SCHEME)
    if '.' not in name:
        tags = [tag for pattern, tag in DEFAULT_TAGS if re.fullmatch(pattern, name)]
        if not tags:
            raise CheckpointError(
                f'{SCHEME}{name} needs a tag, as in {SCHEME}repvit_m1_1.dist_450e_in1k; without '
                'one, only RepViT, EfficientViT (Microsoft), MobileViT, Swin-Tiny and DeiT-Tiny '
                'are known'
            )
        name = f'{name}.{tags[0]}'
    if not re.fullmatch(r'\w+\.\w+', name):
        raise CheckpointError(f'{SCHEME}{name} is not of the form {SCHEME}<model>.<tag>')
    return name


def timm_address(name: str) -> str:
    """The https address of timm's weights ``name``, see `full_name`."""
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
    return f'{hub}/timm/{full_name(name)}/resolve/main/model.safetensors'


def load_timm_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch the weights into torch's hub cache, unless they are already there, and read them.

    Raises:
        CheckpointError: the name is malformed, or the file cannot be fetched or read.
    """
    file = fetch(timm_address(filename), f'timm-{full_name(filename)}.safetensors')
    return read_checkpoint(file, map_location or 'cpu')
