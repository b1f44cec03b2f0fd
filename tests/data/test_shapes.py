"""The shapes data set: the same everywhere, exact, not solvable by colour, and safe on disk."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lightvit_mm.data import shapes
from lightvit_mm.data.shapes import (
    CLASSES,
    PALETTE,
    SEMANTIC_CLASSES,
    SEMANTIC_PALETTE,
    Difficulty,
    coco_annotations,
    draw_scene,
    make_shapes,
)
from lightvit_mm.data.shapes_raster import (
    SUBPIXELS,
    fill_polygon,
    run_lengths,
    trace_polygons,
    twice_area,
)
from lightvit_mm.data.shapes_scene import _Canvas

ROOT = Path(__file__).parents[2]
TRAIN, VAL = 80, 20

# Scenes of the default seed at 128 px: (split, image). The one before the last holds no object, the
# last one a crowd. A change here changes everybody's data: raise `_VERSION` in shapes.py with it (a
# changed `Difficulty` alone is in the manifest anyway), and take what
# `python tests/data/test_shapes.py` prints.
PINNED: dict[tuple[int, int], str] = {
    (0, 0): 'aa6d57a5b9effa3dd87d894eb2edac21aa4d2f8afdb0839f2e3434770c0afe64',
    (0, 1): 'cfe376097446863e147379fea8791996ecb1398f4f316dcf3de7ddbfd56112e6',
    (1, 0): '491e7ba0cb1b0988349ee7dbca5b963f4403a518ada0d4a420843d2c3a3ed85f',
    (0, 21): '20a71c064b2fb0e2948879c7068ae2dcd98d3624dfcf8573cfd78de36ca5e6c4',
    (0, 10): '00f94a7ccfd5df6b2d2cac6cbe558cd61ef38a3bf4bb65cac2166f64601f7716',
}


def digest(split: int, index: int) -> str:
    scene = draw_scene(0, split, index, 128)
    annotations = coco_annotations(scene.instances, index, 1)
    text = json.dumps(annotations, sort_keys=True).encode()
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes() + text).hexdigest()


def decoded(polygons: list[list[int]], height: int, width: int) -> np.ndarray:
    parts = coco_mask.frPyObjects(polygons, height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


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


@pytest.fixture(scope='module')
def scenes() -> list[shapes.Scene]:
    return [draw_scene(0, 0, index, 128) for index in range(TRAIN)]


# The same everywhere


@pytest.mark.parametrize('split, index', PINNED)
def test_pinned_scenes(split: int, index: int) -> None:
    assert digest(split, index) == PINNED[split, index]


def test_pinned_scenes_cover_crowds_and_emptiness() -> None:
    *_, empty, crowded = [draw_scene(0, split, index, 128) for split, index in PINNED]
    assert not empty.instances
    assert any(instance.is_crowd for instance in crowded.instances)


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


def test_global_random_state_is_left_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    draw_scene(0, 0, 0, 64)
    assert np.array_equal(before, np.random.get_state()[1])


def test_json_is_integers_and_sorted(made) -> None:
    text = (made[0] / 'annotations/instances_val.json').read_text()
    document = json.loads(text, parse_float=lambda number: pytest.fail(f'{number} is no integer'))
    assert text == json.dumps(document, sort_keys=True, separators=(',', ':')) + '\n'


# Rasterising and tracing


def test_fill_is_the_even_odd_edge_function() -> None:
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:20, :24] * SUBPIXELS + SUBPIXELS // 2
    for _ in range(100):
        vertices = generator.integers(-100, 450, size=(generator.integers(3, 9), 2))
        expected = np.zeros(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
            straddles = (y0 <= y) != (y1 <= y)
            edge = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
            expected ^= straddles & (edge * np.sign(y1 - y0) >= 0)
        assert np.array_equal(fill_polygon(vertices, 20, 24), expected)


def test_neighbours_neither_overlap_nor_leave_a_gap() -> None:
    # The diagonal and the level edges pass exactly through pixel centres.
    a, b, c, d = (8, 8), (168, 8), (168, 168), (8, 168)
    halves = [fill_polygon(np.array(half), 12, 12) for half in ([a, b, c], [a, c, d])]
    assert (halves[0].sum() + halves[1].sum(), (halves[0] | halves[1]).sum()) == (100, 100)


def test_fill_outside_the_image_is_empty() -> None:
    square = np.array([(0, 0), (64, 0), (64, 64), (0, 64)])
    for offset in ((0, 999), (0, -999), (999, 0), (-999, 0)):
        assert not fill_polygon(square + offset, 10, 10).any()


@pytest.mark.parametrize('density', [0.2, 0.5, 0.8, 1.0])
def test_tracing_random_masks_is_exact(density: float) -> None:
    generator = np.random.default_rng(4)
    for _ in range(60):
        mask = generator.random((11, 13)) < density
        polygons = trace_polygons(mask)
        assert np.array_equal(decoded(polygons, 11, 13), mask)
        areas = [twice_area(np.array(polygon).reshape(-1, 2)) for polygon in polygons]
        # No holes, and parts that tile the mask instead of cancelling each other out.
        assert min(areas) > 0
        assert sum(areas) == 2 * mask.sum()


def test_tracing_a_ring_within_a_ring() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0:9, 0:9], mask[1:8, 1:8], mask[2:7, 2:7], mask[3:6, 3:6] = True, False, True, False
    assert np.array_equal(decoded(trace_polygons(mask), 9, 9), mask)


def test_tracing_keeps_corners_only() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    assert trace_polygons(mask) == [[2, 1, 7, 1, 7, 4, 2, 4]]
    assert trace_polygons(np.zeros((6, 8), dtype=bool)) == []


def test_pixels_that_touch_at_a_corner_are_separate_parts() -> None:
    mask = np.eye(2, dtype=bool)
    assert trace_polygons(mask) == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    assert trace_polygons(~mask) == [[1, 0, 2, 0, 2, 1, 1, 1], [0, 1, 1, 1, 1, 2, 0, 2]]


def test_run_lengths_go_down_the_columns_and_start_with_clear_pixels() -> None:
    assert run_lengths(np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)) == [1, 1, 1, 2, 1]
    assert run_lengths(np.array([[1, 0], [0, 1]], dtype=bool)) == [0, 1, 2, 1]
    assert run_lengths(np.zeros((2, 2), dtype=bool)) == [4]
    assert run_lengths(np.ones((2, 2), dtype=bool)) == [0, 4]


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


def test_occluders_do_punch_holes(scenes) -> None:
    # Otherwise the agreement above says nothing about them.
    objects = [i.mask.astype(np.uint8) for s in scenes for i in s.instances if not i.is_crowd]
    # Hierarchy entry 3 is the parent: a contour with one bounds a hole.
    hierarchies = [cv2.findContours(mask, cv2.RETR_CCOMP, 2)[1] for mask in objects]
    assert sum((hierarchy[..., 3] >= 0).any() for hierarchy in hierarchies) >= 5


def test_crowds_are_run_lengths_of_one_class() -> None:
    found = 0
    for index in range(12):
        scene = draw_scene(0, 0, index, 128, Difficulty(crowd_percent=100))
        for annotation, instance in zip(
            coco_annotations(scene.instances, index, 1), scene.instances, strict=True
        ):
            if not instance.is_crowd:
                assert annotation['iscrowd'] == 0 and isinstance(annotation['segmentation'], list)
                continue
            found += 1
            assert annotation['iscrowd'] == 1
            counts = annotation['segmentation']['counts']
            assert all(type(count) is int for count in counts) and sum(counts) == 128 * 128
            packed = coco_mask.frPyObjects(annotation['segmentation'], 128, 128)
            assert np.array_equal(coco_mask.decode(packed), instance.mask)
            assert coco_mask.area(packed) == annotation['area']
            assert set(scene.labels[instance.mask]) == {instance.category + 1}
    assert found >= 6


def test_what_is_hidden_stays_under_the_limit(monkeypatch) -> None:
    knobs, canvases = Difficulty(), []
    monkeypatch.setattr(
        _Canvas,
        'finish',
        lambda self, finish=_Canvas.finish: (canvases.append(self), finish(self))[1],
    )
    for index in range(20):
        draw_scene(0, 0, index, 128)
    for canvas in canvases:
        visible = np.bincount(canvas.owners.ravel(), minlength=len(canvas.placed) + 1)[1:]
        for wish, area in zip(canvas.placed, visible, strict=True):
            if not wish.is_crowd:
                assert area >= wish.side**2 * knobs.visible_percent // 100
                assert area > 96**2 or wish.side < knobs.large_side[0]


# What the scenes are like


def test_mix_of_sizes_and_classes(made) -> None:
    summary = made[1]
    sizes, classes = summary.train.per_size, summary.train.per_class
    total = sum(sizes.values())
    assert total == sum(classes.values())
    for name, wanted in (('small', 0.35), ('medium', 0.38), ('large', 0.27)):
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


def test_scenes_vary(scenes) -> None:
    numbers = [len(scene.instances) for scene in scenes]
    assert 0 < numbers.count(0) <= 8
    assert max(numbers) <= Difficulty().objects[1] + 1 and np.mean(numbers) > 1.5
    masks = [instance.mask for scene in scenes for instance in scene.instances]
    truncated = sum(m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks)
    assert 0.03 < truncated / len(masks) < 0.5


def test_colour_and_texture_do_not_tell_the_class() -> None:
    features, categories, outside = [], [], []
    for index in range(480):
        scene = draw_scene(7, 0, index, 128, Difficulty(crowd_percent=0))
        image = scene.image.astype(np.float64)
        outside.append(image[scene.labels == 0].mean(axis=0))
        for instance in scene.instances:
            # Away from the blurred border: there are more border pixels in a star than in a disk.
            inner = cv2.erode(instance.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            if inner.sum() >= 20:
                pixels = image[inner]
                features.append([*pixels.mean(axis=0), *pixels.std(axis=0)])
                categories.append(instance.category)
    table, truth = np.array(features), np.array(categories)
    scaled = (table - table.mean(axis=0)) / table.std(axis=0)
    means = np.stack([scaled[::2][truth[::2] == category].mean(axis=0) for category in range(4)])
    distances = ((scaled[1::2, None] - means) ** 2).sum(axis=2)
    accuracy = (distances.argmin(axis=1) == truth[1::2]).mean()
    # By chance 0.25; 0.1 is four standard deviations for the 280 objects of the held out half.
    assert len(truth) > 500 and accuracy < 0.35
    # Nor do they tell an object from the background.
    assert np.abs(table[:, :3].mean(axis=0) - np.mean(outside, axis=0)).max() < 15


def test_objects_stand_out_from_what_they_cover() -> None:
    def faint(contrast: int) -> float:
        """Part of the objects whose mean colour is near that of the pixels around them."""
        differences = []
        for index in range(40):
            scene = draw_scene(0, 0, index, 128, Difficulty(contrast=contrast, crowd_percent=0))
            for instance in scene.instances:
                mask = instance.mask.astype(np.uint8)
                ring = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) - mask) > 0
                means = [scene.image[where].mean(axis=0) for where in (instance.mask, ring)]
                differences.append(np.abs(means[0] - means[1]).sum())
        return float(np.mean(np.array(differences) < 90))

    assert faint(200) < faint(0) / 2


@pytest.mark.parametrize('size', [64, 65, 150, 320])
def test_other_image_sizes(size: int) -> None:
    scenes = [draw_scene(0, 0, index, size) for index in range(4)]
    areas = [int(i.mask.sum()) for scene in scenes for i in scene.instances if not i.is_crowd]
    assert all(scene.image.shape == (size, size, 3) for scene in scenes)
    assert len(areas) >= 4 and max(areas) <= (Difficulty().largest_percent + 1) / 100 * size**2


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


def test_an_older_version_is_refused(tmp_path: Path, monkeypatch) -> None:
    make_small(tmp_path / 'shapes')
    monkeypatch.setattr(shapes, '_VERSION', shapes._VERSION + 1)
    with pytest.raises(FileExistsError, match='version'):
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


@pytest.mark.parametrize('moment', ['_write_png', '_write_json'])
@pytest.mark.parametrize('occupied', [False, True])
def test_an_interrupted_run_leaves_no_trace(
    tmp_path: Path, monkeypatch, moment: str, occupied: bool
) -> None:
    root = tmp_path / 'shapes'
    if occupied:
        make_small(root)
    before = tree(tmp_path)
    write, calls = getattr(shapes, moment), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        # The third JSON file is the manifest, the last of all.
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shapes, moment, interrupted)
        make_small(root, seed=1, force=True)
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (['shapes'] if occupied else [])
    assert not make_small(root, seed=1, force=True).reused


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch) -> None:
    """A run that is killed outright cannot clean up; what it leaves must not pass for whole."""
    written = []
    write_json, write_png = shapes._write_json, shapes._write_png
    monkeypatch.setattr(
        shapes,
        '_write_json',
        lambda path, *a, **o: (written.append(path), write_json(path, *a, **o)),
    )
    monkeypatch.setattr(
        shapes, '_write_png', lambda path, *a: (written.append(path), write_png(path, *a))
    )
    make_small(tmp_path / 'shapes')
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
    with pytest.raises(SystemExit, match='make_shapes: data/shapes holds another') as caught:
        run_tool(monkeypatch, 'data/shapes', *few, '--seed', '1')
    assert '\n' not in str(caught.value)
    run_tool(monkeypatch, 'data/shapes', *few, '--seed', '1', '--force')
    assert 'seed 1' in capsys.readouterr().out


def test_the_module_itself_needs_no_torch() -> None:
    # The package imports torch, so its own __init__ is left out here.
    code = (
        'import sys, types\n'
        'package = types.ModuleType("lightvit_mm")\n'
        f'package.__path__ = [{str(ROOT / "lightvit_mm")!r}]\n'
        'sys.modules["lightvit_mm"] = package\n'
        'import lightvit_mm.data.shapes\n'
        'print(*{"torch", "mmdet", "mmseg", "mmengine", "mmcv"} & set(sys.modules))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''


def print_pins() -> None:
    scenes = [(index, draw_scene(0, 0, index, 128).instances) for index in range(200)]
    empty = next(index for index, instances in scenes if not instances)
    crowded = next(index for index, some in scenes if any(one.is_crowd for one in some))
    for key in ((0, 0), (0, 1), (1, 0), (0, empty), (0, crowded)):
        print(f'    {key}: {digest(*key)!r},')


if __name__ == '__main__':
    print_pins()
