"""Fixtures."""

import functools
import gc
import logging
import signal
import urllib.request
from pathlib import Path

import pytest
import torch
from helpers.network import Network
from mmengine.logging import MessageHub, MMLogger
from mmengine.utils.dl_utils import collect_env
from mmengine.visualization import Visualizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first, so that parallel runs end at the same time."""
    items.sort(key=lambda item: item.get_closest_marker('slow') is None)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported; mmengine calls it for every data set."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _forget_runs() -> None:
    """mmengine gives the next run of this process the visualizer of the last and its folder, and
    one that starts within the same second its log file and its figures too.
    """
    yield
    for kind in (Visualizer, *Visualizer.__subclasses__(), MMLogger, MessageHub):
        kind._instance_dict.clear()


@pytest.fixture
def mm_log() -> list[str]:
    """The lines that mmengine's logger writes during the test."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded data set."""
    from lightvit_mm.shapes.dataset import make_shapes

    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, num_train=8, num_val=4)
    return root


@pytest.fixture(scope='session')
def small_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with one object of each class of the embedded data set."""
    from helpers import small_data

    root = tmp_path_factory.mktemp('data')
    small_data.write_images(root, ['a.png', 'b.png'])
    small_data.write_coco(root, small_data.coco(dict.fromkeys(['a.png', 'b.png'], small_data.SIZE)))
    return root


@pytest.fixture(scope='session', autouse=True)
def quick_runner() -> None:
    """Runners ask the compiler for its version once, and do not lay out their config in PEP 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', functools.cache(collect_env))
        # onedl-mmengine imports it only where it is called.
        for place in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
            patch.setattr(f'{place}.FormatCode', lambda text, **_: (text, True), raising=False)
        yield


@pytest.fixture(scope='session', autouse=True)
def _quick_export() -> None:
    """Exports in 8 bits are timed once, not for seconds."""
    from lightvit_mm.export import exporting
    from lightvit_mm.measure.timing import alternate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, 'alternate', lambda calls, **_: alternate(calls, rounds=1))
        yield


@pytest.fixture
def ctrl_c() -> None:
    """SIGINT raises KeyboardInterrupt; shells turn that off for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Network:
    """No address answers but those that the test names; downloads go into its own folder."""
    network = Network()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    for handler, method in (('HTTPSHandler', 'https_open'), ('HTTPHandler', 'http_open')):
        monkeypatch.setattr(
            getattr(urllib.request, handler), method, lambda _, request: network.open(request)
        )
    return network
