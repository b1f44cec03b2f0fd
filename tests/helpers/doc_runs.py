"""Running the commands of the pages of the docs."""

import glob
import runpy
import sys
from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope

from helpers import small_data
from helpers.repository import REPOSITORY
from lightvit_mm.engine.configs import load_config


def run_command(words: list[str], monkeypatch, capfd, more: list[str]) -> str:
    """Run a ``python`` command of a page in this process, with more arguments.

    Returns:
        What it printed.
    """
    assert words[0] == 'python'
    arguments = [name for word in words[2:] for name in (sorted(glob.glob(word)) or [word])]
    monkeypatch.setattr(sys, 'argv', [words[1], *arguments, *more])
    status = 0
    try:
        runpy.run_path(words[1], run_name='__main__')
    except SystemExit as end:
        status = end.code
    out, err = capfd.readouterr()
    assert not status, out + err
    return out + err


def save_detector_of_the_quickstart(file: Path) -> None:
    """A checkpoint with random weights in place of the trained ones."""
    init_default_scope('mmdet')
    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    state = MODELS.build(config.model).state_dict()
    file.parent.mkdir(parents=True)
    meta = {'dataset_meta': {'classes': small_data.CLASSES}}
    torch.save({'state_dict': state, 'meta': meta}, file)
