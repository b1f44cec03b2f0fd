"""Golden files: outputs of a reference implementation on weights and inputs made from a rule."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / 'golden'


def read(name: str) -> dict:
    return json.loads((FOLDER / f'{name}.json').read_text())


def weights(golden: dict) -> dict[str, torch.Tensor]:
    """The state dict, in the layout of the release, that the outputs were computed from."""
    return {key: _weight(key, shape) for key, shape in golden['state_dict'].items()}


def _weight(key: str, shape: list[int]) -> torch.Tensor:
    if key.endswith('num_batches_tracked'):
        return torch.tensor(0)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith('running_var'):
        value = 1.5 + rng.random(shape)
    elif key.endswith(('running_mean', 'bias')) or 'attention_biases' in key:
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) <= 1:
        value = 1 + 0.1 * rng.standard_normal(shape)
    else:
        value = 0.7 * rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def image(shape: list[int]) -> torch.Tensor:
    _, _, height, width = shape
    rng = np.random.default_rng(height * 10007 + width)
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def deviation(output: torch.Tensor, expected: dict) -> float:
    """Largest difference from the sampled values, in standard deviations of the level."""
    assert list(output.shape) == expected['shape']
    sampled = output.contiguous().flatten()[expected['index']].double().numpy()
    return float(np.abs(sampled - np.array(expected['value'])).max() / expected['std'])
