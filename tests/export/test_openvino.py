"""Precisions of OpenVINO files; tests/engine/test_exported_model.py exports a detector."""

import pytest
import torch
from helpers.repository import REPOSITORY
from torch import nn

from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.session import open_file


def test_half_of_the_weights_space(tmp_path):
    for name in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(name, reason='not installed: pip install -e ".[openvino]"')
    module = nn.Conv2d(3, 400, 3, 2)
    found, sizes = {}, {}
    image = torch.rand(1, 3, 8, 8) * 255
    for precision in ('fp32', 'fp16'):
        out = tmp_path / precision / 'Model.XML'
        made = export_subject(Subject(module, ['map'], (8, 8), precision=precision), out)
        assert made.deviation < 1e-4
        assert {file.name for file in out.parent.iterdir()} == {'Model.XML', 'Model.bin'}
        sizes[precision] = out.with_suffix('.bin').stat().st_size
        found[precision] = torch.from_numpy(open_file(out).run(image.numpy())['map'])
    assert sizes['fp16'] < 0.6 * sizes['fp32']
    deviation = (found['fp16'] - found['fp32']).abs().max() / found['fp32'].std()
    assert 0 < deviation < 1e-2


def test_a_link_is_refused(tmp_path):
    pytest.importorskip('openvino', reason='not installed: pip install -e ".[openvino]"')
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept/model.bin').write_bytes(b'precious')
    link = tmp_path / 'link.xml'
    link.symlink_to(tmp_path / 'kept/model.xml')
    config = load_config(str(REPOSITORY / 'configs/semantic_fpn_edgevit_xxs_ade20k.py'))
    with pytest.raises(UserError, match=r'link\.xml is a link to .*kept/model\.xml: give the name'):
        export(config, 'none.pth', str(link), (64, 64))
    assert (tmp_path / 'kept/model.bin').read_bytes() == b'precious'
