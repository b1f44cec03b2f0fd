"""Downloads: over https only, complete, checked against the hash in the name, and never run."""

import hashlib
import io
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import save

from lightvit_mm.checkpoints import CheckpointError
from lightvit_mm.checkpoints.download import fetch

SITE = 'https://site.example/weights'


class RunsOnLoad:
    def __reduce__(self):
        return os.mkdir, ('was_run',)


def as_file(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


WEIGHTS = as_file({'weight': torch.ones(2)})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cached(tmp_path) -> list[str]:
    folder = tmp_path / 'torch/hub/checkpoints'
    return [file.name for file in folder.iterdir()] if folder.exists() else []


def name_of(address: str) -> str:
    name, _, suffix = urlsplit(address).path.split('/')[-1].rpartition('.')
    return f'{name}.{hashlib.sha256(address.encode()).hexdigest()[:12]}.{suffix}'


def test_fetched_once_and_read(network, tmp_path):
    network.answers[f'{SITE}/a.pth?download=true'] = WEIGHTS
    for _ in range(2):
        content = CheckpointLoader.load_checkpoint(f'{SITE}/a.pth?download=true')
        assert content['weight'].sum() == 2
    assert len(network.asked) == 1
    assert cached(tmp_path) == [name_of(f'{SITE}/a.pth?download=true')]


@pytest.mark.parametrize('name', ['epoch_12.pth', 'a-12345678', ''])
def test_sites_with_the_same_names(network, tmp_path, name):
    addresses = [
        f'{site}/{name}{query}'
        for site in ('https://a.org/x', 'https://b.org/x', 'https://b.org/y')
        for query in ('', '?v=2')
    ]
    for _ in range(2):
        for number, address in enumerate(addresses):
            network.answers[address] = as_file({'weight': torch.full((1,), float(number))})
            assert CheckpointLoader.load_checkpoint(address)['weight'] == number
    assert network.asked == addresses
    assert len(cached(tmp_path)) == len(addresses)


@pytest.mark.parametrize(
    'address',
    [
        'https://', 'https:///a.pth', 'https://[bad/a.pth', 'https://a b/c.pth', 'https://..a/b.pth',
        'https://127.0.0.1:x/a.pth', 'https://127.0.0.1:1/\n.pth', 'https://127.0.0.1:1/\ud800.pth',
        f'https://127.0.0.1:1/{"a" * 400}.{"b" * 400}',
    ],
)  # fmt: skip
def test_addresses_that_are_none(address, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    with pytest.raises(CheckpointError, match=r'^https://'):
        fetch(address)
    assert not cached(tmp_path)


def test_a_real_server_without_protection(tmp_path, monkeypatch):
    asked = []

    class Redirects(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header('Location', '/b.pth')
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    with HTTPServer(('127.0.0.1', 0), Redirects) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        place = f'127.0.0.1:{server.server_port}/a.pth'
        with pytest.raises(CheckpointError, match='unprotected'):
            CheckpointLoader.load_checkpoint(f'http://{place}')
        with pytest.raises(CheckpointError, match=r'could not be fetched: \[SSL'):
            CheckpointLoader.load_checkpoint(f'https://{place}')
        server.shutdown()
        thread.join()
    assert not asked
    assert not cached(tmp_path)


def test_safetensors(network):
    network.answers[f'{SITE}/a.safetensors'] = save({'weight': torch.ones(2)})
    assert CheckpointLoader.load_checkpoint(f'{SITE}/a.safetensors')['weight'].sum() == 2


@pytest.mark.parametrize('digits', [8, 16, 64])
def test_the_hash_in_the_name(network, tmp_path, digits):
    right = hashlib.sha256(WEIGHTS).hexdigest()[:digits]
    network.answers[f'{SITE}/v-1.0-{right}.pth'] = WEIGHTS
    assert CheckpointLoader.load_checkpoint(f'{SITE}/v-1.0-{right}.pth')
    wrong = f'{SITE}/v-1.0-{right[::-1]}.pth'
    network.answers[wrong] = WEIGHTS
    with pytest.raises(CheckpointError, match='does not match the hash in its name'):
        CheckpointLoader.load_checkpoint(wrong)
    (name,) = cached(tmp_path)
    assert name == name_of(f'{SITE}/v-1.0-{right}.pth')
    # A file in the cache is checked as well.
    (tmp_path / 'torch/hub/checkpoints' / name).write_bytes(WEIGHTS + b'x')
    with pytest.raises(CheckpointError, match='does not match the hash in its name'):
        CheckpointLoader.load_checkpoint(f'{SITE}/v-1.0-{right}.pth')


@pytest.mark.parametrize('name', ['epoch-12.pth', 'model-v2.pth', 'repvit-m1.pth'])
def test_names_without_a_hash(network, name):
    network.answers[f'{SITE}/{name}'] = WEIGHTS
    assert CheckpointLoader.load_checkpoint(f'{SITE}/{name}')


@pytest.mark.parametrize('address', ['http://site.example/a.pth', 'HTTP://site.example/a.pth'])
def test_unprotected_addresses(network, address):
    network.answers[address] = WEIGHTS
    with pytest.raises((CheckpointError, FileNotFoundError)):
        CheckpointLoader.load_checkpoint(address)
    assert not network.asked


@pytest.mark.parametrize('path', ['', '/', '/..', '/weights/..', '/?download=1', '/#a.pth'])
def test_addresses_without_a_file(network, tmp_path, path):
    with pytest.raises(CheckpointError, match=r'https://site\.example.* names no file; give'):
        CheckpointLoader.load_checkpoint(f'https://site.example{path}')
    assert not cached(tmp_path)


@pytest.mark.parametrize('target', ['http://site.example/b.pth', 'file:///etc/passwd'])
def test_redirects_stay_protected(network, tmp_path, target):
    network.redirects[f'{SITE}/a.pth'] = target
    network.answers[target] = WEIGHTS
    with pytest.raises(CheckpointError, match=r'unprotected|not allowed'):
        CheckpointLoader.load_checkpoint(f'{SITE}/a.pth')
    assert network.asked == [f'{SITE}/a.pth']
    assert not cached(tmp_path)


def test_protected_redirects_are_followed(network):
    network.redirects[f'{SITE}/a.pth'] = 'https://elsewhere.example/b.pth'
    network.answers['https://elsewhere.example/b.pth'] = WEIGHTS
    assert CheckpointLoader.load_checkpoint(f'{SITE}/a.pth')['weight'].sum() == 2


def test_a_cache_that_cannot_be_written(network, tmp_path):
    network.answers[f'{SITE}/a.pth'] = WEIGHTS
    (tmp_path / 'torch').write_text('not a folder')  # root may write into any folder
    with pytest.raises(
        CheckpointError, match=r'a\.pth could not be fetched: .*Not a directory.*torch'
    ):
        CheckpointLoader.load_checkpoint(f'{SITE}/a.pth')


def test_a_download_that_is_cut_short_leaves_nothing(network, tmp_path):
    address = f'{SITE}/a.pth'
    network.answers[address] = WEIGHTS
    whole = network.open

    def cut(request):
        response = whole(request)
        response.read(len(WEIGHTS) // 2)
        return response

    network.open = cut
    with pytest.raises(CheckpointError, match='it ended after'):
        CheckpointLoader.load_checkpoint(address)
    assert not cached(tmp_path)


def test_two_downloads_at_once_do_not_mix(network, tmp_path):
    address = f'{SITE}/a.pth'
    network.answers[address] = WEIGHTS
    whole = network.open

    def slow(request):
        response = whole(request)
        network.open = whole
        # While this one is under way, another process fetches all of it.
        CheckpointLoader.load_checkpoint(address)
        return response

    network.open = slow
    assert CheckpointLoader.load_checkpoint(address)['weight'].sum() == 2
    assert network.asked == [address, address]
    assert cached(tmp_path) == [name_of(address)]


NAMED = {
    'torchvision://net': ('get_torchvision_models', {'net': f'{SITE}/net.pth'}),
    'modelzoo://net': ('get_torchvision_models', {'net': f'{SITE}/net.pth'}),
    'open-mmlab://net': ('get_external_models', {'net': f'{SITE}/net.pth'}),
    'openmmlab://net': ('get_external_models', {'net': f'{SITE}/net.pth'}),
    'mmcls://net': ('get_mmcls_models', {'net': f'{SITE}/net.pth'}),
}


@pytest.mark.parametrize('name', NAMED)
def test_names_that_mmengine_knows(network, monkeypatch, tmp_path, name):
    table, known = NAMED[name]
    monkeypatch.setattr(mmengine_checkpoint, table, lambda: known)
    network.answers[f'{SITE}/net.pth'] = as_file({'state_dict': {'backbone.weight': torch.ones(2)}})
    content = CheckpointLoader.load_checkpoint(name)
    prefix = '' if name.startswith('mmcls') else 'backbone.'
    assert list(content['state_dict']) == [f'{prefix}weight']
    with pytest.raises(CheckpointError, match=r'knows no such name.*net'):
        CheckpointLoader.load_checkpoint(f'{name}t')
    (tmp_path / 'torch/hub/checkpoints' / name_of(f'{SITE}/net.pth')).unlink()
    network.answers[f'{SITE}/net.pth'] = as_file({'state_dict': {}, 'meta': RunsOnLoad()})
    with pytest.raises(CheckpointError, match=r'refused.*mkdir'):
        CheckpointLoader.load_checkpoint(name)
    assert not (tmp_path / 'was_run').exists()


def test_deprecated_names_and_local_files_of_openmmlab(monkeypatch, tmp_path):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'mine.pth').write_bytes(WEIGHTS)
    (tmp_path / 'open_mmlab.json').write_text('{"detectron/resnet50_caffe": "mine.pth"}')
    content = CheckpointLoader.load_checkpoint('open-mmlab://resnet50_caffe')
    assert content['weight'].sum() == 2


@pytest.mark.parametrize('name', ['pavi://a', 's3://b/a.pth', 'x:s3://b/a.pth', 'petrel://a'])
def test_stores_that_are_refused(name):
    with pytest.raises(CheckpointError, match='fetch it yourself'):
        CheckpointLoader.load_checkpoint(name)


def test_every_loader_of_mmengine_has_been_replaced():
    for scheme, loader in CheckpointLoader._schemes.items():
        assert loader.__module__.startswith('lightvit_mm.'), scheme
