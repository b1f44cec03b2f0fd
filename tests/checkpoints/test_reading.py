"""Files are read whole and safely, or refused with a reason."""

import argparse
import copy
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save, save_file

from lightvit_mm.backbones import RepViT
from lightvit_mm.checkpoints import CheckpointError, read_checkpoint
from lightvit_mm.checkpoints.reading import find_damage


class RunsOnLoad:
    """A pickle that would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f'touch {self.target}',)


class GetsOnLoad:
    """A pickle that reaches for an attribute through the one allowed ``getattr``."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_what_a_runner_writes(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        'state_dict': {'weight': torch.ones(2)},
        'meta': {'seed': np.int64(3), 'score': np.float64(0.5)},
        'message_hub': {'loss': history, 'values': np.arange(3), 'empty': HistoryBuffer()},
        'args': argparse.Namespace(lr=0.1),
    }
    torch.save(content, tmp_path / 'epoch_1.pth')
    read = read_checkpoint(tmp_path / 'epoch_1.pth')
    assert torch.equal(read['state_dict']['weight'], torch.ones(2))
    assert read['message_hub']['loss'].mean() == 1.5
    assert read['meta']['seed'] == 3
    assert read['args'].lr == 0.1


@pytest.mark.parametrize('place', ['root', 'state_dict', 'meta'])
def test_code_is_refused_and_not_run(tmp_path, place):
    target = tmp_path / 'was_run'
    evil = RunsOnLoad(target)
    content = {
        'root': {'weight': torch.ones(1), 'x': evil},
        'state_dict': {'state_dict': {'weight': evil}},
        'meta': {'state_dict': {}, 'meta': {'deep': [{'er': evil}]}},
    }[place]
    file = tmp_path / 'evil.pth'
    torch.save(content, file)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=r'refused.*system') as error:
            read(str(file))
        assert str(file) in str(error.value)
    assert not target.exists()


def test_getattr_reaches_statistics_only(tmp_path):
    torch.save({'state_dict': {}, 'meta': GetsOnLoad()}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='refused'):
        read_checkpoint(tmp_path / 'evil.pth')


def test_source_of_a_config_is_not_handed_on(tmp_path):
    # mmengine's Runner.resume would run it.
    source = 'import os; os.mkdir("was_run")'
    torch.save({'state_dict': {}, 'meta': {'config': source, 'epoch': 3}}, tmp_path / 'evil.pth')
    assert read_checkpoint(tmp_path / 'evil.pth')['meta'] == {'epoch': 3}


def test_allowances_end_with_the_call(tmp_path):
    torch.save({'history': HistoryBuffer()}, tmp_path / 'a.pth')
    read_checkpoint(tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'<!DOCTYPE html><html></html>',
        b'PK\x03\x04' + bytes(100),
        b'\x80\x02}q',
        b'plain text\n',
        b'\x08\n\x12\x07pytorch\x1a',
        b'{"not": "weights"}',
        bytes(1000),
    ],
    ids=['empty', 'web page', 'cut zip', 'cut pickle', 'text', 'ONNX', 'JSON', 'zeros'],
)
def test_damaged_files(tmp_path, content):
    file = tmp_path / 'weights.pth'
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'weights\.pth.*Fetch it again'):
        read_checkpoint(file)


def test_damage_is_found_in_either_kind_of_check(tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save({'weight': torch.zeros(50, 50)}, file)
    assert find_damage(file) is None
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + b'\x01' + content[middle + 1 :])
    assert find_damage(file).endswith('data/0 does not match its checksum')
    with pytest.raises(CheckpointError, match=r'is damaged.*data/0 does not match its checksum'):
        read_checkpoint(file)
    file.write_bytes(content[:middle])
    assert 'BadZipFile' in find_damage(file)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_checkpoint(tmp_path / 'weights.pth')
    with pytest.raises(FileNotFoundError, match='is a directory'):
        read_checkpoint(tmp_path)


def test_not_weights_at_all(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        read_checkpoint(tmp_path / 'list.pth')


def test_safetensors(tmp_path):
    save_file({'weight': torch.arange(4.0)}, tmp_path / 'weights.safetensors')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'weights.safetensors'))
    assert torch.equal(read['weight'], torch.arange(4.0))
    (tmp_path / 'cut.safetensors').write_bytes(b'\x10\x00\x00\x00\x00\x00\x00\x00{"a"')
    with pytest.raises(CheckpointError, match='safetensors'):
        read_checkpoint(tmp_path / 'cut.safetensors')


def header(length: int | None = None, after: bytes = bytes(16), **entries) -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(entries).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + after


def entry(start=0, end=16, dtype='F32', shape=(4,)) -> dict:
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [start, end]}


DAMAGED = {
    'absurd length': header(2**63 - 1, w=entry()),
    'length beyond the file': header(10**6, w=entry()),
    'length too short': header(5, w=entry()),
    'no header': bytes(8),
    'not JSON': struct.pack('<Q', 4) + b'{"a"',
    'nested JSON': struct.pack('<Q', 200_000) + b'{"a":' * 40_000,
    'unknown dtype': header(w=entry(dtype='F128')),
    'dtype of other software': header(w=entry(dtype='F8_E8M0', end=4), after=bytes(4)),
    'overlap': header(w=entry(), v=entry()),
    'hole': header(w=entry(), v=entry(32, 48), after=bytes(48)),
    'bytes behind': header(w=entry(), after=bytes(20)),
    'too few bytes': header(w=entry(), after=bytes(12)),
    'shape too large': header(w=entry(shape=(5,))),
    'shape that overflows': header(w=entry(shape=(2**32, 2**32))),
    'negative shape': header(w=entry(shape=(-4,))),
    'offsets reversed': header(w=entry(16, 0)),
    'same name twice': header(w=entry(), v=entry(16, 32), after=bytes(32)).replace(b'"v"', b'"w"'),
}


@pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
@pytest.mark.parametrize('content', DAMAGED.values(), ids=DAMAGED)
def test_damaged_safetensors(tmp_path, content, suffix):
    file = tmp_path / f'weights.{suffix}'
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf'weights\.{suffix} is not .*Fetch it again'):
        read_checkpoint(file)


def test_safetensors_may_have_any_name_and_pickles_may_not(tmp_path):
    weights = {'weight': torch.arange(4.0)}
    for length in range(100, 120):  # of the header, whose first byte may be that of a pickle
        (tmp_path / 'weights.pth').write_bytes(save(weights, {'note': 'x' * length}))
        assert torch.equal(read_checkpoint(tmp_path / 'weights.pth')['weight'], weights['weight'])
    for new in (True, False):
        file = tmp_path / 'weights.safetensors'
        torch.save(weights, file, _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match='if torch saved it, name it'):
            read_checkpoint(file)


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_expand_are_refused_unread(tmp_path, method, monkeypatch):
    torch.save({'weight': torch.zeros(100, 100)}, tmp_path / 'whole.pth')
    with (
        zipfile.ZipFile(tmp_path / 'whole.pth') as whole,
        zipfile.ZipFile(tmp_path / 'bomb.pth', 'w') as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name), method if name.endswith('data/0') else None)
    monkeypatch.setattr(zipfile.ZipFile, 'open', lambda *_: pytest.fail('was read'))
    with pytest.raises(CheckpointError, match=r'bomb\.pth is damaged.*data/0 is compressed'):
        read_checkpoint(tmp_path / 'bomb.pth')


def test_parts_that_overlap(tmp_path):
    file = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(file, 'w') as bomb:
        bomb.writestr('archive/data/0', bytes(1000))
        for number in range(1, 100):  # further names of the same bytes
            again = copy.copy(bomb.infolist()[0])
            again.filename = f'archive/data/{number}'
            bomb.filelist.append(again)
    with pytest.raises(CheckpointError, match='larger than the file'):
        read_checkpoint(file)


@pytest.mark.parametrize('kind', ['pth', 'legacy.pth', 'safetensors'])
@pytest.mark.parametrize('change', ['cut', 'emptied', 'removed'])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, kind, change):
    file = tmp_path / f'weights.{kind}'
    weights = {'weight': torch.zeros(1000)}
    if kind == 'safetensors':
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=kind == 'pth')
    owner, name = (Path, 'read_bytes') if kind == 'safetensors' else (torch, 'load')
    read = getattr(owner, name)

    def change_and_read(*args, **kwargs):
        if change == 'removed':
            file.unlink()
        else:
            os.truncate(file, 2000 if change == 'cut' else 0)
        return read(*args, **kwargs)

    # The last that is called, when everything about the file has been checked.
    monkeypatch.setattr(owner, name, change_and_read)
    with pytest.raises(CheckpointError, match='Fetch it again'):
        read_checkpoint(file)


def test_values_are_not_left_in_the_file(tmp_path):
    file = tmp_path / 'weights.safetensors'
    save_file({'weight': torch.ones(100_000)}, file)
    read = read_checkpoint(file)
    os.truncate(file, 0)  # with values in the file, the next line would kill Python
    assert read['weight'].sum() == 100_000


@pytest.mark.parametrize('key', ['state_dict', 'model', 'model_ema'])
def test_weights_inside_a_training_file(tmp_path, key):
    torch.save({key: {'weight': torch.ones(1)}, 'epoch': 3}, tmp_path / 'file.pth')
    read = read_checkpoint(tmp_path / 'file.pth')
    assert list(read['state_dict']) == ['weight']
    assert read['epoch'] == 3


def test_unprotected_downloads_are_refused():
    with pytest.raises(CheckpointError, match='https'):
        CheckpointLoader.load_checkpoint('http://localhost/weights.pth')


def test_without_a_network_it_is_said_before_anything_starts(network):
    address = 'https://example.org/repvit_m0_9.pth'
    backbone = RepViT(arch='m0_9', init_cfg={'type': 'Pretrained', 'checkpoint': address})
    with pytest.raises(CheckpointError) as error:
        backbone.init_weights()
    message = str(error.value)
    assert f'{address} could not be fetched: no route' in message
    assert 'model.backbone.init_cfg.checkpoint=FILE' in message
    assert 'model.backbone.init_cfg=None' in message
