"""Converters that need more packages than this one: they run in an environment of their own.

`tools/setup.sh --with NAME` makes ``.venv-NAME`` in the checkout, which sees the packages of the
main environment too. A converter is a script in this folder that imports nothing of this package:
the model goes to it as a file of torch.export.
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.errors import UserError

__all__ = ['ImageBytes', 'python_with', 'run_converter', 'save_graph']

ROOT = Path(__file__).parents[2]
SHOWN = 5  # last lines of a log in an error


class ImageBytes(nn.Module):
    """An image as OpenCV reads it, (1, H, W, 3) uint8, into a network for (1, 3, H, W) float32.

    Args:
        network: takes images with channels in the order blue, green, red.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Any:
        """Run the network."""
        return self.network(image.permute(0, 3, 1, 2).float())


def save_graph(module: nn.Module, example: torch.Tensor, file: Path) -> None:
    """Write the graph of a module in eval mode.

    Nothing in it is in channels_last, with which LiteRT's files are wrong and XNNPACK's converter
    fails, and no operator changes a tensor in place.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, about its own code
        program = torch.export.export(_contiguous(module), (example,), strict=False)
        torch.export.save(program.run_decompositions({}), file)


def _contiguous(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, PyramidBackbone):
            part.level_format = torch.contiguous_format
    for tensor in (*module.parameters(), *module.buffers()):
        # contiguous() keeps the strides of weights with one column, row or channel, and the layout
        # of what a convolution returns follows them.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return module


def python_with(module: str, name: str) -> str:
    """The Python that can import a converter: this one, or that of ``.venv-NAME``.

    Args:
        module: the converter's module.
        name: what ``tools/setup.sh --with`` calls it.

    Raises:
        UserError: there is none.
    """
    if importlib.util.find_spec(module) is not None:
        return sys.executable
    python = ROOT / f'.venv-{name}/bin/python'
    if not python.is_file():
        raise UserError(
            f'the converter {module} is needed and not installed: bash tools/setup.sh --with '
            f'{name} makes an environment for it in the checkout. Without a checkout: pip install '
            f'{module.replace("_", "-")}'
        )
    return str(python)


def run_converter(python: str, script: str, arguments: Sequence[str | Path], title: str) -> str:
    """Run a script of this folder, and show and return the last line that it writes.

    Args:
        python: from `python_with`.
        script: its name without ``.py``.
        arguments: of the script.
        title: what it does.

    Raises:
        UserError: it fails; the error has the end of its log.
    """
    # -I: the modules of this folder would hide packages of the same names. The warnings of many
    # libraries would hide what goes wrong.
    command = [python, '-I', '-u', '-W', 'ignore', str(Path(__file__).with_name(f'{script}.py'))]
    # It runs in another folder.
    command += [str(x.absolute() if isinstance(x, Path) else x) for x in arguments]
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status(title) as status:
        process = subprocess.Popen(
            command, cwd=folder, text=True, errors='replace',
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            assert process.stdout
            for line in filter(str.strip, process.stdout):
                lines.append(line.rstrip())
                status.update(f'{title}: {lines[-1][:100]}')
            code = process.wait()
        finally:
            process.kill()
    if code:
        end = '\n    '.join(lines[-SHOWN:])
        raise UserError(f'{title} failed with status {code}; it wrote nothing:\n    {end}')
    return lines[-1] if lines else ''
