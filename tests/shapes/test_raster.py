"""Filling and tracing outlines: exact, in both directions."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lightvit_mm.shapes.raster import (
    SUBPIXELS,
    fill_polygon,
    run_lengths,
    trace_polygons,
    twice_area,
)


def decoded(polygons: list[list[int]], height: int, width: int) -> np.ndarray:
    parts = coco_mask.frPyObjects(polygons, height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


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
