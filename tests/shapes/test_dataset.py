"""The shapes data set: the same on every machine, exact, and safe on disk."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from lightvit_mm.shapes import dataset as shapes
from lightvit_mm.shapes.dataset import (
    CLASSES,
    PALETTE,
    SEMANTIC_CLASSES,
    SEMANTIC_PALETTE,
    Difficulty,
    draw_scene,
    make_shapes,
)

ROOT = Path(__file__).parents[2]
TRAIN, VAL = 80, 20


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def make_small(root: Path, **changes) -> shapes.ShapesSummary:
    return make_shapes(root, **{'num_train': 3, 'num_val': 2, 'image_size': 64, **changes})


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> tuple[Path, shapes.ShapesSummary]:
    root = tmp_path_factory.mktemp('made') / 'shapes'
    return root, make_shapes(root, num_train=TRAIN, num_val=VAL)


# The same on every machine


def test_same_bytes_twice(tmp_path: Path) -> None:
    make_small(tmp_path / 'a')
    make_small(tmp_path / 'b')
    assert tree(tmp_path / 'a') == tree(tmp_path / 'b')


def test_seeds_and_splits_and_images_differ(tmp_path: Path) -> None:
    images = [draw_scene(*key, 64).image.tobytes() for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0)]]
    assert len({*images, draw_scene(0, 0, 1, 64).image.tobytes()}) == 4


def test_an_image_does_not_depend_on_their_number(tmp_path: Path) -> None:
    few, many = tmp_path / 'few', tmp_path / 'many'
    make_small(few, num_train=2)
    make_small(many, num_train=5, num_val=1)
    for kind in ('images', 'semantic'):
        for path in sorted((few / kind / 'train').iterdir()):
            assert path.read_bytes() == (many / kind / 'train' / path.name).read_bytes()
    first, second = (
        json.loads((root / 'annotations/instances_train.json').read_text()) for root in (few, many)
    )
    count = len(first['annotations'])
    assert count and first['annotations'] == second['annotations'][:count]


def test_json_is_integers_and_sorted(made) -> None:
    text = (made[0] / 'annotations/instances_val.json').read_text()
    document = json.loads(text, parse_float=lambda number: pytest.fail(f'{number} is no integer'))
    assert text == json.dumps(document, sort_keys=True, separators=(',', ':')) + '\n'


# Annotations


@pytest.mark.parametrize('split, number', [('train', TRAIN), ('val', VAL)])
def test_annotations_are_exact(made, split: str, number: int) -> None:
    coco = COCO(made[0] / f'annotations/instances_{split}.json')
    assert sorted(coco.imgs) == list(range(number))
    assert tuple(coco.cats[key]['name'] for key in sorted(coco.cats)) == CLASSES
    assert min(coco.cats) == 1 and min(coco.anns) == 1
    for image_id, record in coco.imgs.items():
        image = cv2.imread(made[0] / 'images' / split / record['file_name'])
        labels = cv2.imread(
            made[0] / 'semantic' / split / record['file_name'], cv2.IMREAD_UNCHANGED
        )
        assert image.shape == (record['height'], record['width'], 3) == (128, 128, 3)
        assert labels.shape == (128, 128) and labels.dtype == np.uint8
        scene = draw_scene(0, shapes.SPLITS.index(split), image_id, 128)
        assert np.array_equal(image[:, :, ::-1], scene.image)
        assert np.array_equal(labels, scene.labels)

        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        rebuilt = np.zeros((128, 128), dtype=np.uint8)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(mask, instance.mask)
            assert annotation['area'] == mask.sum() >= Difficulty().visible_area
            left, top, width, height = annotation['bbox']
            assert 0 <= left < left + width <= 128 and 0 <= top < top + height <= 128
            rows, columns = np.nonzero(mask)
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            assert not rebuilt[mask].any(), 'two instances share a pixel'
            rebuilt[mask] = annotation['category_id']
        assert np.array_equal(rebuilt, labels)


def test_mix_of_sizes_and_classes(made) -> None:
    summary = made[1]
    sizes, classes = summary.train.per_size, summary.train.per_class
    total = sum(sizes.values())
    assert total == sum(classes.values())
    for name, wanted in (('small', 0.39), ('medium', 0.34), ('large', 0.27)):
        assert abs(sizes[name] / total - wanted) < 0.1
    assert all(abs(count / total - 0.25) < 0.1 for count in classes.values())


def test_counts_are_those_of_the_annotations(made) -> None:
    root, summary = made
    for split, counts in (('train', summary.train), ('val', summary.val)):
        annotations = json.loads((root / f'annotations/instances_{split}.json').read_text())
        areas = [a['area'] for a in annotations['annotations'] if not a['iscrowd']]
        assert counts.per_size == {
            'small': sum(area < 1024 for area in areas),
            'medium': sum(1024 <= area <= 9216 for area in areas),
            'large': sum(area > 9216 for area in areas),
        }
        assert counts.crowds == len(annotations['annotations']) - len(areas)
        filled = {a['image_id'] for a in annotations['annotations']}
        assert counts.empty_images == counts.images - len(filled)


def test_size_limits_are_cocos() -> None:
    annotations = [
        {'image_id': 0, 'category_id': 1, 'iscrowd': 0, 'area': area}
        for area in (1023, 1024, 9216, 9217)
    ]
    counts = shapes._count(3, annotations)
    assert counts.per_size == {'small': 1, 'medium': 2, 'large': 1}
    assert counts.empty_images == 2


def test_names_and_colours() -> None:
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE)) == 4
    assert len(SEMANTIC_CLASSES) == len(SEMANTIC_PALETTE) == 5
    assert SEMANTIC_CLASSES[1:] == CLASSES and SEMANTIC_PALETTE[1:] == PALETTE


# On disk


def test_a_whole_set_is_reused(tmp_path: Path) -> None:
    root = tmp_path / 'sub' / 'shapes'
    first = make_small(root)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    second = make_small(root)
    assert (first.reused, second.reused) == (False, True)
    assert (first.train, first.val) == (second.train, second.val)
    assert stamps == {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert os.listdir(root.parent) == ['shapes']


@pytest.mark.parametrize(
    'change, words',
    [
        ({'num_train': 4}, 'num_train is 3 there, 4 was asked for'),
        ({'seed': 1}, 'seed is 0 there, 1 was asked for'),
        ({'difficulty': Difficulty(noise=1)}, 'difficulty'),
    ],
)
def test_other_parameters_are_refused(tmp_path: Path, change: dict, words: str) -> None:
    root = tmp_path / 'shapes'
    make_small(root)
    before = tree(root)
    with pytest.raises(FileExistsError, match=words) as caught:
        make_small(root, **change)
    assert '--force' in str(caught.value) and 'another path' in str(caught.value)
    assert tree(root) == before

    assert not make_small(root, **change, force=True).reused
    assert tree(root) != before
    assert make_small(root, **change).reused
    assert os.listdir(tmp_path) == ['shapes']


def test_an_older_version_is_refused(tmp_path: Path) -> None:
    make_small(tmp_path / 'shapes')
    file = tmp_path / 'shapes/manifest.json'
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, 'version': manifest['version'] - 1}))
    with pytest.raises(FileExistsError, match='version is 0 there, 1 was asked for'):
        make_small(tmp_path / 'shapes')


@pytest.mark.parametrize('content', [None, '{}', '[]', 'not JSON', '{"format": "coco"}'])
@pytest.mark.parametrize('force', [False, True])
def test_a_foreign_directory_is_never_touched(
    tmp_path: Path, content: str | None, force: bool
) -> None:
    root = tmp_path / 'mine'
    root.mkdir()
    (root / 'notes.txt').write_text('precious')
    if content is not None:
        (root / 'manifest.json').write_text(content)
    before = tree(root)
    with pytest.raises(FileExistsError, match='not a shapes data set'):
        make_small(root, force=force)
    assert tree(root) == before


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(FileExistsError):
        make_small(tmp_path / 'file', force=True)
    assert (tmp_path / 'file').read_text() == 'precious'


def test_force_spares_what_others_put_beside_the_data(tmp_path: Path) -> None:
    root = tmp_path / 'shapes'
    make_small(root)
    (root / 'work_dirs').mkdir()
    with pytest.raises(FileExistsError, match='work_dirs'):
        make_small(root, seed=1, force=True)
    assert (root / 'work_dirs').is_dir() and make_small(root).reused


@pytest.mark.parametrize(
    'lost',
    ['images/train/000002.png', 'semantic/val/000000.png', 'annotations/instances_val.json'],
)
def test_a_damaged_set_does_not_pass_for_whole(tmp_path: Path, lost: str) -> None:
    root = tmp_path / 'shapes'
    make_small(root)
    (root / lost).unlink()
    with pytest.raises(FileExistsError, match=lost):
        make_small(root)
    make_small(root, force=True)
    assert (root / lost).is_file()


def test_an_empty_directory_and_a_link_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    assert not make_small(tmp_path / 'link').reused
    assert (tmp_path / 'link').is_symlink() and make_small(tmp_path / 'disk').reused


# The third JSON file is the manifest, the last of all.
@pytest.mark.parametrize('method', ['write_bytes', 'write_text'], ids=['PNG', 'JSON'])
@pytest.mark.parametrize('occupied', [False, True])
def test_an_interrupted_run_leaves_no_trace(
    tmp_path: Path, monkeypatch, method: str, occupied: bool
) -> None:
    root = tmp_path / 'shapes'
    if occupied:
        make_small(root)
    before = tree(tmp_path)
    write, calls = getattr(Path, method), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, method, interrupted)
        make_small(root, seed=1, force=True)
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (['shapes'] if occupied else [])
    assert not make_small(root, seed=1, force=True).reused


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch) -> None:
    """A run that is killed cannot clean up; what it leaves must not count as complete."""
    written = []

    def noting(method):
        def write(path, *content, **options):
            written.append(path)
            return method(path, *content, **options)

        return write

    for name in ('write_text', 'write_bytes'):
        monkeypatch.setattr(Path, name, noting(getattr(Path, name)))
    make_small(tmp_path / 'shapes')
    assert len(written) == len(tree(tmp_path))
    assert written[-1].name == 'manifest.json'
    assert all(tmp_path / 'shapes' not in path.parents for path in written)


@pytest.mark.parametrize(
    'change, words',
    [
        ({'num_train': 0}, 'num_train is 0'),
        ({'num_val': -1}, 'num_val is -1'),
        ({'image_size': 32}, 'image_size is 32, but must be 64..2048'),
        ({'seed': -1}, 'seed is -1'),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_small(tmp_path / 'shapes', **change)
    assert not any(tmp_path.iterdir())


# The tool


def run_tool(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['make_shapes.py', *arguments])
    runpy.run_path(str(ROOT / 'tools/make_shapes.py'), run_name='__main__')


def test_tool(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    few = ['--train', '3', '--val', '2', '--size', '64']
    run_tool(monkeypatch, 'data/shapes', *few)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == 'data/shapes: 3 train and 2 val images of 64 px, seed 0'
    assert all(word in lines[1] for word in (*CLASSES, *shapes.SIZES))
    run_tool(monkeypatch, 'data/shapes', *few)
    assert 'there already' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='2'):
        run_tool(monkeypatch, 'data/shapes', *few, '--seed', '1')
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith('error: make_shapes: data/shapes holds another')
    run_tool(monkeypatch, 'data/shapes', *few, '--seed', '1', '--force')
    assert 'seed 1' in capsys.readouterr().out


def test_the_module_itself_needs_no_torch() -> None:
    # The package imports torch, so its own __init__ is left out here.
    code = (
        'import sys, types\n'
        'package = types.ModuleType("lightvit_mm")\n'
        f'package.__path__ = [{str(ROOT / "lightvit_mm")!r}]\n'
        'sys.modules["lightvit_mm"] = package\n'
        'import lightvit_mm.shapes.dataset\n'
        'print(*{"torch", "mmdet", "mmseg", "mmengine", "mmcv"} & set(sys.modules))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''
