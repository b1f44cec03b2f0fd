"""ncnn files, by pnnx from a traced graph.

The input of a file is one image as OpenCV reads it: ``ncnn::Mat::from_pixels`` with ``PIXEL_BGR``.
A detector's file ends before NMS, see `lightvit_mm.export.raw`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.converters import run_converter
from lightvit_mm.export.low_rank import low_rank
from lightvit_mm.export.modules import Preprocessing
from lightvit_mm.export.subject import Subject

__all__ = ['write']


class ConvPreprocessing(nn.Module):
    """A `Preprocessing` whose channel order and normalisation are one convolution.

    Args:
        plain: what it replaces.
    """

    def __init__(self, plain: Preprocessing) -> None:
        super().__init__()
        self.network = plain.network
        scale = 1 / plain.std.flatten()
        weight = torch.diag(scale)
        self.conv = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.conv.weight.copy_((weight.flip(1) if plain.swap else weight)[:, :, None, None])
            self.conv.bias.copy_(-plain.mean.flatten() * scale)  # type: ignore[union-attr]

    def forward(self, image: torch.Tensor) -> Any:
        """Reorder the channels, normalise, and run the network."""
        return self.network(self.conv(image))


def write(subject: Subject, part: Path) -> None:
    """Write a subject as a ``.ncnn.param`` file, and a ``.bin`` and a ``.json`` file beside it.

    Raises:
        UserError: pnnx has no form of the graph that ncnn can run.
    """
    module = subject.whole
    # ncnn would need another layer for the channel order.
    module = ConvPreprocessing(module) if isinstance(module, Preprocessing) else module
    example = torch.zeros(1, 3, *subject.size)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, 'model.pt')
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch's, about its own code
            # In the graph of torch.export, sizes are numbers.
            program = torch.export.export(low_rank(module), (example,), strict=False)
            _remove_aliases(program.graph)
            plain = program.module(check_guards=False)
            torch.jit.trace(plain, example, check_trace=False).save(str(graph))
        sides = map(str, subject.size)
        arguments: list[str | Path] = [graph, *sides, part, part.with_suffix('.bin')]
        try:
            run_converter(sys.executable, 'ncnn_converter', arguments, 'converting to ncnn')
        except UserError as error:
            raise UserError(
                f'{error}\n    the network has an operator that ncnn or its converter lacks: '
                'export it to another format, for instance .onnx'
            ) from error
    metadata = subject.metadata | {'outputs': list(subject.names), 'size': list(subject.size)}
    content = json.dumps(metadata, ensure_ascii=False)
    part.with_suffix('.json').write_text(content, encoding='utf-8')


def _remove_aliases(graph: fx.Graph) -> None:
    """Remove the operator that slices over whole axes become, which pnnx does not know."""
    for node in graph.find_nodes(op='call_function', target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
