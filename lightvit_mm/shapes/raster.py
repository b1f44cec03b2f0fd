"""Exact rasterising, boundary tracing and run lengths for the shapes data set.

All arithmetic is in integers, so the same input gives the same pixels on every machine. Vertices
are in 1/16 px. Pixel (column, row) covers the unit square whose upper left corner is (column, row),
and belongs to a polygon if its centre does.
"""

from __future__ import annotations

import math
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

SUBPIXELS = 16
"""Vertex units per pixel."""
FULL_TURN = 1024
"""Angle units per full turn."""
UNIT = 1 << 14
"""The length 1 in ``SINE``, in ``COSINE`` and in outlines before scaling."""

# Every entry is at least 4e-4 away from a rounding tie. Maths libraries differ by far less, so the
# integers are the same everywhere.
SINE: NDArray[np.int64] = np.array(
    [round(UNIT * math.sin(2 * math.pi * angle / FULL_TURN)) for angle in range(FULL_TURN)],
    dtype=np.int64,
)
"""Sine of every angle, in 1/``UNIT``."""
COSINE: NDArray[np.int64] = np.roll(SINE, -FULL_TURN // 4)
"""Cosine of every angle, in 1/``UNIT``."""

# Directions on the pixel grid, clockwise on the screen: east, south, west, north.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

Point = tuple[int, int]


def fill_polygon(vertices: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        vertices: (V, 2) x and y in 1/16 px; may lie outside the image.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        (height, width) mask. Polygons that share an edge never share a pixel or leave a gap.
    """
    # Libraries fill other pixels: cv2.fillPoly adds those that the outline touches (1 of 1061
    # outlines came out the same), and pycocotools rounds the vertices first (13 of 731).
    #
    # A pixel centre is right of an edge if its edge function is >= 0. Along a row that function is
    # linear in the column, so each edge is solved once per row for the first column where it holds,
    # and a running parity does the rest.
    following = np.roll(vertices, -1, axis=0)
    downward = (vertices[:, 1] <= following[:, 1])[:, None]
    upper = np.where(downward, vertices, following)
    run, rise = np.where(downward, following - vertices, vertices - following).T[:, :, None]
    half = SUBPIXELS // 2
    top = min(max(int(upper[:, 1].min()) // SUBPIXELS, 0), height)
    bottom = max(min(int(vertices[:, 1].max()) // SUBPIXELS + 1, height), top)
    rows = np.arange(top, bottom)
    depth = rows * SUBPIXELS + half - upper[:, 1:]
    # Each edge includes its upper end but not its lower one; horizontal edges are left out.
    crosses = (depth >= 0) & (depth < rise)
    crossing = (upper[:, :1] - half) * rise + depth * run
    columns = np.clip(-(-crossing // np.maximum(SUBPIXELS * rise, 1)), 0, width)
    cells = ((rows - top) * (width + 1) + columns)[crosses]
    toggles = np.bincount(cells, minlength=(bottom - top) * (width + 1)).astype(np.uint8)
    toggles = toggles.reshape(bottom - top, width + 1)[:, :width]
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom] = np.bitwise_xor.accumulate(toggles & 1, axis=1)
    return mask


def twice_area(vertices: NDArray[np.int64]) -> int:
    """Twice the signed area of a polygon, positive if it runs clockwise on the screen.

    Args:
        vertices: (V, 2) x and y.

    Returns:
        Twice the area in the square of the vertices' unit.
    """
    following = np.roll(vertices, -1, axis=0)
    return int(np.sum(vertices[:, 0] * following[:, 1] - following[:, 0] * vertices[:, 1]))


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Smallest box around the pixels of a mask (H, W).

    Returns:
        x, y, width and height in px, (x, y) being the upper left corner; all 0 without a pixel.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, width, height


def trace_polygons(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Polygons along the pixel edges of a mask, which rasterise back to exactly that mask.

    COCO polygons have no holes, so a part with a hole is cut in two along a column through it.
    The cuts lie on pixel edges: the polygons still tile the mask without overlap.

    Args:
        mask: (H, W).

    Returns:
        One flat list x0, y0, x1, y1, ... in px per part, corners only, clockwise on the screen,
        upper left part first. Pixels that touch only at a corner are separate parts.
    """
    left, top, width, height = tight_box(mask)
    if not width:
        return []
    window = mask[top : top + height, left : left + width]
    loops = _boundary_loops(window)
    areas = [twice_area(np.array(loop, dtype=np.int64)) for loop in loops]
    hole = next((loop for loop, area in zip(loops, areas, strict=True) if area < 0), None)
    if hole is None:
        return [[value for x, y in loop for value in (x + left, y + top)] for loop in loops]
    cut = left + (min(x for x, _ in hole) + max(x for x, _ in hole)) // 2
    columns = np.arange(mask.shape[1])
    return trace_polygons(mask & (columns < cut)) + trace_polygons(mask & (columns >= cut))


def _boundary_loops(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """Corner lists of all boundary loops, each walked with the mask on the right-hand side."""
    # cv2.findContours connects pixel centres, and joins pixels that touch only at a corner: neither
    # its contours nor those of the doubled mask follow the pixel edges.
    padded = np.pad(mask, 1)
    # Per direction, the grid points where a boundary edge of unit length starts: the pixel to the
    # right of the edge is set, and the one to its left is not.
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    starts = (
        lower_right & ~upper_right,
        lower_left & ~lower_right,
        upper_left & ~lower_left,
        upper_right & ~upper_left,
    )
    edges = {
        ((x, y), direction): None
        for direction, grid in enumerate(starts)
        for y, x in np.argwhere(grid).tolist()
    }

    loops = []
    pending = dict(edges)
    while pending:
        # Eastward edges come first, in reading order, so the first one left starts at a corner.
        edge, previous = next(iter(pending)), -1
        loop: list[Point] = []
        while edge in pending:
            del pending[edge]
            (x, y), direction = edge
            if direction != previous:
                loop.append((x, y))
            previous = direction
            end = (x + _STEPS[direction][0], y + _STEPS[direction][1])
            # Right turn first: where two pixels touch only at a corner, stay with the same pixel.
            candidates = ((end, (direction + turn) % 4) for turn in (1, 0, 3))
            edge = next(candidate for candidate in candidates if candidate in edges)
        loops.append(loop)
    return loops


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask in COCO's order: column by column, starting with unset pixels.

    Args:
        mask: (H, W).

    Returns:
        Lengths that sum to H * W; the first is 0 if the first pixel is set.
    """
    # pycocotools gives them compressed only.
    flat = mask.ravel(order='F').tolist()
    lengths = [len(list(run)) for _, run in groupby(flat)]
    return [0, *lengths] if flat[0] else lengths
