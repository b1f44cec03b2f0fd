"""``timm://<model>[.<tag>]``: the weights that timm published, fetched without timm.

timm keeps each set of weights in a repository of its own on the Hugging Face hub, as one
``model.safetensors``. The backbones know timm's key layouts; all that is needed here is the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from mmengine.dist import barrier as dist_barrier
from mmengine.dist import get_rank, get_world_size
from torch.hub import download_url_to_file, get_dir

from lightvit_mm.checkpoints.reading import OFFLINE_HINT, CheckpointError, read_checkpoint

SCHEME = 'timm://'
# What timm 1.0.31 itself takes for a name without a tag.
DEFAULT_TAGS = (
    (r'repvit_m[123]', 'dist_in1k'),
    (r'repvit_m\d_\d', 'dist_300e_in1k'),
    (r'efficientvit_m\d', 'r224_in1k'),
    (r'mobilevit_(xxs|xs|s)', 'cvnets_in1k'),
    (r'swin_tiny_patch4_window7_224', 'ms_in1k'),
    (r'deit_tiny_patch16_224', 'fb_in1k'),
)


def timm_address(name: str) -> str:
    """The https address of timm's weights ``name``, with or without the scheme and a tag.

    Raises:
        CheckpointError: the name has no tag and is not one whose tag is known.
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
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
    return f'{hub}/timm/{name}/resolve/main/model.safetensors'


def load_timm_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch the weights into torch's hub cache, unless they are there, and read them.

    Raises:
        CheckpointError: the name is not understood, or the file cannot be fetched.
    """
    address = timm_address(filename)
    if not address.startswith('https://'):
        raise CheckpointError(f'HF_ENDPOINT has to be an https:// address, not {address}')
    folder = Path(get_dir()) / 'checkpoints'
    file = folder / f'timm-{address.split("/timm/")[1].split("/")[0]}.safetensors'
    if not file.is_file() and get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(address, str(file))
        except HTTPError as error:
            raise CheckpointError(
                f'{filename}: {address} answers {error.code} ({error.reason}); '
                'does timm have that model and tag?'
            ) from error
        except (URLError, OSError) as error:
            reason = getattr(error, 'reason', error)
            raise CheckpointError(
                f'{filename}: {address} could not be fetched: {reason}. {OFFLINE_HINT}'
            ) from error
    if get_world_size() > 1:
        dist_barrier()
    return read_checkpoint(file, map_location or 'cpu')
