"""Running ExecuTorch files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.runtimes.detections import choose
from lightvit_mm.runtimes.session import METADATA, Size


class ExecutorchSession:
    """An ExecuTorch file on the CPU, see `Session`.

    Args:
        file: the ``.pte`` file.
    """

    def __init__(self, file: Path) -> None:
        from executorch.runtime import Runtime

        self.program = Runtime.get().load_program(file)
        self.method = self.program.load_method('forward')
        (content,) = self.program.load_method(METADATA).execute([])
        self.metadata: dict[str, Any] = json.loads(content)
        self.outputs: list[str] = self.metadata['outputs']
        height, width = self.metadata['size']
        self.size: Size | None = (height, width)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file, see `Session.run`."""
        made = self.method.execute([torch.from_numpy(np.ascontiguousarray(image))])
        # The next run reuses their memory.
        arrays = [value.numpy().copy() for value in made]
        if 'choice' in self.metadata:
            boxes, scores = arrays
            return choose(boxes, scores, self.metadata['choice'])
        return dict(zip(self.outputs, arrays, strict=True))


open_session = ExecutorchSession
