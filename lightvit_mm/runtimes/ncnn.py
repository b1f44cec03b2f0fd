"""Running ncnn files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.runtimes.detections import choose
from lightvit_mm.runtimes.session import Size


class NcnnSession:
    """An ncnn file on the CPU in float32, see `Session`.

    Args:
        file: the ``.ncnn.param`` file; the ``.bin`` and ``.json`` files lie beside it.
    """

    def __init__(self, file: Path) -> None:
        import ncnn

        self.metadata: dict[str, Any] = json.loads(
            file.with_suffix('.json').read_text(encoding='utf-8')
        )
        self.outputs: list[str] = self.metadata['outputs']
        height, width = self.metadata['size']
        self.size: Size | None = (height, width)
        self.net = ncnn.Net()
        self.net.opt.num_threads = torch.get_num_threads()
        # By default ARM processors compute in 16 bits.
        self.net.opt.use_fp16_packed = self.net.opt.use_fp16_storage = False
        self.net.opt.use_fp16_arithmetic = self.net.opt.use_bf16_storage = False
        if self.net.load_param(str(file)) or self.net.load_model(str(file.with_suffix('.bin'))):
            raise ValueError('it or its .bin file is damaged')

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file, see `Session.run`."""
        import ncnn

        pixels = np.ascontiguousarray(image[0], 'float32')  # ncnn reads it without owning it
        extractor = self.net.create_extractor()
        extractor.input('in0', ncnn.Mat(pixels))
        # pnnx numbers them; the net has them in another order.
        names = sorted(self.net.output_names(), key=lambda name: int(name[3:]))
        arrays = [np.array(extractor.extract(name)[1]) for name in names]
        if 'choice' in self.metadata:
            boxes, scores = arrays
            return choose(boxes, scores, self.metadata['choice'])
        return {name: array[None] for name, array in zip(self.outputs, arrays, strict=True)}


open_session = NcnnSession
