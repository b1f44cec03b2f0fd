"""Spoil a checkpoint in many ways and try to load each: run by test_mutations.py.

    python tests/helpers/mutated_checkpoints.py FOLDER COUNT SEED

Prints one line of JSON a file: how it was spoilt, and what became of it. A process of its own, so
that a crash of the interpreter is seen as one.
"""

import copy
import io
import json
import logging
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from safetensors.torch import save

from lightvit_mm.backbones import EdgeViT, EfficientViT, MobileViT, RepViT
from lightvit_mm.errors import UserError

NETWORKS = [
    (EdgeViT, {'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1), 'head_dim': 8}),
    (RepViT, {'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1)}),
    (
        EfficientViT,
        {
            'embed_dims': (16, 16, 16),
            'depths': (1, 1, 1),
            'num_heads': (2, 2, 2),
            'kernel_sizes': (5, 5),
        },
    ),
    (
        MobileViT,
        {
            **MobileViT.arch_settings['xxs'],
            'stem_dims': 8,
            'embed_dims': (8, 8, 8, 8),
            'transformer_dims': (16, 16, 16),
        },
    ),
]


def as_zip(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_legacy(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def flip(data: bytes, draw: random.Random, end: int | None = None) -> bytes:
    spoilt = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 4, 32])):
        spoilt[draw.randrange(end or len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([0, 1, 2, 100, len(data) // 2, len(data) - 1])]


def cut_out(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, 200) :]


def some(weights: dict, draw: random.Random) -> str:
    # The counters of BatchNorm have no effect on outputs, and old files lack them.
    return draw.choice([key for key in weights if not key.endswith('num_batches_tracked')])


def drop(weights, draw):
    del weights[some(weights, draw)]
    return weights


def rename(weights, draw):
    key = some(weights, draw)
    weights[draw.choice([f'{key}x', key.replace('.', '/'), '', key.upper() + '_'])] = weights.pop(
        key
    )
    return weights


def add(weights, draw):
    weights[draw.choice(['extra', 'stages.9.weight', ''])] = torch.ones(1)
    return weights


def reshape(weights, draw):
    key = some(weights, draw)
    value = weights[key]
    forms = [value[None], value.flatten()[:-1], torch.cat([value, value]), value.new_empty(0)]
    weights[key] = draw.choice(forms)
    return weights


def wrong_value(weights, draw):
    key = some(weights, draw)
    value = weights[key]
    weights[key] = draw.choice(
        [
            None, 'text', 1.5, [1, 2], {'weight': value}, value.tolist(), value.numpy(),
            value.to(torch.int32), value.bool(), value.to(torch.complex64), value.to_sparse(),
            torch.empty_like(value, device='meta'), torch.full_like(value, float('nan')),
            torch.full_like(value, float('inf')), value.double() * 1e300,
            torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        ]
    )  # fmt: skip
    return weights


def wrong_key(weights, draw):
    weights[draw.choice([0, None, 1.5, ('a', 'b'), b'weight'])] = torch.ones(1)
    return weights


def wrong_container(weights, draw):
    inner: dict = {'state_dict': weights}
    inner['state_dict'] = inner if draw.random() < 0.5 else weights
    deep = weights
    for _ in range(2000):
        deep = {'model': deep}
    return draw.choice(
        [
            list(weights.items()), tuple(weights.values()), None, 3, 'text', set(weights), {},
            {'state_dict': None}, {'state_dict': [1]}, {'model': {}}, {'state_dict': {'model': 0}},
            {'a': weights}, {'state_dict': {'a': weights}}, {'state_dict': {'state_dict': inner}},
            deep, torch.ones(3), np.ones(3),
        ]
    )  # fmt: skip


def wrong_metadata(weights, draw):
    entries = draw.choice(
        [5, {'': 5}, {'': {'version': 'x'}}, {'': {'version': None}}, [1], {5: 5}]
    )
    weights._metadata = entries
    return weights


BYTES = {'flip': flip, 'cut': cut, 'cut out': cut_out}
CONTENTS = {
    function.__name__: function
    for function in (
        drop, rename, add, reshape, wrong_value, wrong_key, wrong_container, wrong_metadata,
    )
}  # fmt: skip


def spoil(weights, draw: random.Random, number: int) -> tuple[str, str, bytes]:
    """How, with which suffix, and the bytes."""
    names = [*BYTES, *CONTENTS, 'raw pickle', 'safetensors header', 'legacy cut']
    name = names[number % len(names)]
    if name in BYTES:
        return name, '.pth', BYTES[name](as_zip(weights), draw)
    if name in CONTENTS:
        write = draw.choice([as_zip, as_legacy])
        return name, '.pth', write(CONTENTS[name](weights, draw))
    if name == 'raw pickle':
        plain = pickle.dumps({key: value.tolist() for key, value in weights.items()}, protocol=2)
        return name, '.pth', flip(plain, draw)
    if name == 'safetensors header':
        data = save({key: value.contiguous() for key, value in weights.items()})
        # Values have no check sum in this format; what is spoilt is the part before them.
        end = 8 + int.from_bytes(data[:8], 'little')
        return name, '.safetensors', draw.choice([flip(data, draw, end), cut(data, draw)])
    return name, '.pth', cut(as_legacy(weights), draw)


def outcome(model, file: Path, right: dict) -> str:
    for value in model.state_dict().values():
        value.zero_()
    blank = {key: torch.zeros_like(value) for key, value in right.items()}
    model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    model._is_init = False
    try:
        model.init_weights()
    except UserError as error:
        said, expected = 'refused', blank
        if str(file) not in str(error):
            return f'unclear: {error}'
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    else:
        said, expected = 'the same tensors', right
    same = all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    return said if same else f'loaded something else ({said})'


def main() -> None:
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    MMLogger.get_instance('mutations', log_level=logging.ERROR)
    torch.manual_seed(seed)
    draw = random.Random(seed)
    models = [family(arch=arch) for family, arch in NETWORKS]
    originals = [copy.deepcopy(model.state_dict()) for model in models]
    for number in range(count):
        index = draw.randrange(len(models))
        how, suffix, data = spoil(originals[index].copy(), draw, number)
        file = folder / f'{number}{suffix}'
        file.write_bytes(data)
        # Before the attempt, so that the last line names what crashed the interpreter.
        print(json.dumps({'file': file.name, 'how': how}), flush=True)
        said = outcome(models[index], file, originals[index])
        print(json.dumps({'outcome': said[:300]}), flush=True)


if __name__ == '__main__':
    main()
