"""Packaging of lightvit_mm; the tested versions of everything are in tools/requirements*.txt."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'lightvit_mm/__init__.py').read_text())[1]
# The configs and tools in the package are links, which a wheel or an archive has as files.
CARRIED = ['.mim/model-index.yml', '.mim/configs/*', '.mim/configs/_base_/*.py', '.mim/tools/*.py']
FOR_CHECKOUTS = [
    f'.mim/tools/{tool}.py' for tool in ('_cuda', 'build_mmcv', 'choose', 'gpu_check', 'model_zoo')
]
ONNX = ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20']
if not (HERE / 'lightvit_mm/.mim/configs/_base_').is_dir():
    sys.exit('lightvit_mm/.mim/configs is not a link to configs/: git clone -c core.symlinks=true')

setup(
    name='lightvit_mm',
    version=VERSION,
    description='Lightweight vision backbones for dense prediction on OpenMMLab',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['lightvit_mm', 'lightvit_mm.*']),
    package_data={'lightvit_mm': ['py.typed', 'reporting/report.html', *CARRIED]},
    exclude_package_data={'lightvit_mm': FOR_CHECKOUTS},
    entry_points={'console_scripts': ['lightvit-mm = lightvit_mm.__main__:main']},
    # The OpenMMLab packages are extras: their maintained forks (onedl-*) install the same modules
    # under other names, and a hard requirement would overwrite them with the frozen originals.
    install_requires=['jinja2', 'numpy', 'rich', 'safetensors', 'torch>=2.4'],
    extras_require={
        'mmdet': ['mmengine>=0.10.7', 'mmcv>=2.1.0,<2.2.0', 'mmdet>=3.3.0'],
        'mmseg': [
            'mmengine>=0.10.7',
            'mmcv>=2.1.0,<2.2.0',
            'mmsegmentation>=1.2.2',
            'ftfy',
            'regex',
        ],
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmdetection>=3.5.1',
            'onedl-mmsegmentation>=1.4.2',
        ],
        # In a CPU environment, see docs/pretrain.md.
        'imagenet': ['timm>=1.0.31', 'torchvision', 'scipy'],
        'onnx': ONNX,
        'openvino': [*ONNX, 'openvino>=2025.0'],
        'executorch': ['executorch>=1.5'],
        'ncnn': ['ncnn>=1.0.20260101', 'pnnx>=20260101'],
        'litert': ['ai-edge-litert>=2.0'],
        'coreml': ['coremltools>=9.0'],
        'tensorboard': ['tensorboard'],
        'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'mypy'],
    },
)
