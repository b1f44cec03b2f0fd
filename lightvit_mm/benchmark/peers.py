"""The models of mmdet and mmseg to compare whole detectors and segmentors with."""

from __future__ import annotations

import importlib
from pathlib import Path

from lightvit_mm.errors import UserError

# Below the folder of configs that comes with the package.
PEERS = {
    'mmdet': {
        'mmdet RTMDet-tiny': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        'mmdet YOLOX-tiny': 'yolox/yolox_tiny_8xb8-300e_coco.py',
        'mmdet SSDLite-MobileNetV2': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    },
    'mmseg': {
        'mmseg SegFormer-B0': 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    },
}


def peer_configs(scope: str) -> dict[str, str]:
    """The config files of the peers by name in tables.

    Wheels of mmdet and mmseg hold their configs in ``.mim``. They are read from there, because
    ``mmdet::`` in a config needs pkg_resources, which newer setuptools lack.

    Args:
        scope: ``mmdet`` or ``mmseg``; others have no peers.

    Raises:
        UserError: the installed package came without its configs.
    """
    found = {}
    for name, config in PEERS.get(scope, {}).items():
        package = importlib.import_module(scope)
        file = Path(str(package.__file__)).parent / '.mim' / 'configs' / config
        if not file.is_file():
            raise UserError(
                f'--peers: {file} does not exist; this installation of {scope} came without its '
                'configs. Install it from a wheel, or leave out --peers'
            )
        found[name] = str(file)
    return found
