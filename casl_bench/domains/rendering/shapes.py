"""Anti-aliased drawing of flat illustrations with signed distance functions.

Every shape is a signed distance in drawing units, negative inside.  A `Canvas` turns distances into
coverage and blends colours over its pixels.  Only additions, products, square roots and integer
hashes are applied to pixels, all of them correctly rounded, so that pictures do not depend on the
mathematical library of the machine.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def mix_bits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scrambles 64-bit words with the splitmix64 finaliser.

    Args:
        words: uint64 array of any shape with at least one axis.

    Returns:
        uint64 array of the same shape; a bijection of each word.
    """
    z = words + np.uint64(_GOLDEN)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def hashed_words(ids: NDArray[np.int64], seed: int, columns: int) -> NDArray[np.uint64]:
    """Random words that depend on (seed, id, column) alone.

    Args:
        ids: non-negative int64 [n].
        seed: any integer; taken modulo 2**64.
        columns: number of words for each id.

    Returns:
        uint64 [n, columns], uniform over all 64-bit words.
    """
    key = mix_bits(np.array([seed & _MASK64], dtype=np.uint64))
    rows = mix_bits(mix_bits(ids.astype(np.uint64)) ^ key)
    steps = np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return mix_bits(rows[:, None] + steps[None, :])


def film_grain(key: int, size: int, sigma: float) -> FloatArray:
    """Nearly Gaussian noise that depends on its key alone.

    Args:
        key: any integer; taken modulo 2**64.
        size: height and width in pixels.
        sigma: standard deviation, in the units of the picture.

    Returns:
        float32 [3, size, size] with mean 0, no value beyond 3.5 sigma.
    """
    start = mix_bits(np.array([key & _MASK64], dtype=np.uint64))
    steps = np.arange(3 * size * size, dtype=np.uint64) * np.uint64(_GOLDEN)
    parts = mix_bits(start + steps).view(np.uint16).reshape(-1, 4)
    # A sum of four uniforms is close to a Gaussian, and needs no logarithm or cosine.
    total = parts[:, 0].astype(np.float32)
    for column in range(1, 4):
        total += parts[:, column]
    scale = sigma * math.sqrt(3.0) / 65536.0
    return ((total - np.float32(131070.0)) * np.float32(scale)).reshape(3, size, size)


def hsv(hue: float, saturation: float, value: float) -> FloatArray:
    """Colour from hue (turns, wraps), saturation and value in [0, 1]; float32 [3] in [0, 255]."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return np.array(rgb, dtype=np.float32) * np.float32(255.0)


def colours(*rows: tuple[int, int, int]) -> FloatArray:
    """Colours in [0, 255] as float32 [n, 3]."""
    return np.array(rows, dtype=np.float32)


def palette(stops: FloatArray, position: float) -> FloatArray:
    """Colour at a place along a row of colours, linearly interpolated.

    Args:
        stops: float32 [k, 3], k >= 2, in [0, 255].
        position: in [0, 1], from the first colour to the last.

    Returns:
        float32 [3] in [0, 255].
    """
    place = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    result: FloatArray = stops[index] + np.float32(place - index) * (
        stops[index + 1] - stops[index]
    )
    return result


def ellipse(x: FloatArray, y: FloatArray, cx: float, cy: float, rx: float, ry: float) -> FloatArray:
    """Distance to an axis-aligned ellipse, first-order accurate near its outline.

    Args:
        x: float32 [h, w] drawing units.
        y: float32 [h, w] drawing units.
        cx: centre.
        cy: centre.
        rx: horizontal half axis, positive.
        ry: vertical half axis, positive.

    Returns:
        float32 [h, w], negative inside.
    """
    px, py = (x - cx) / rx, (y - cy) / ry
    k0 = px * px + py * py
    px /= rx
    py /= ry
    k1 = px * px + py * py
    # k0 (k0 - 1) / k1 with roots folded together; the offset keeps the centre finite.
    result: FloatArray = (k0 - np.sqrt(k0)) / np.sqrt(k1 + np.float32(1e-8))
    return result


def rounded_box(
    x: FloatArray, y: FloatArray, cx: float, cy: float, hx: float, hy: float, radius: float
) -> FloatArray:
    """Distance to a box of half sides hx, hy with corners rounded by radius; float32 [h, w]."""
    qx = np.abs(x - cx) - (hx - radius)
    qy = np.abs(y - cy) - (hy - radius)
    ox, oy = np.maximum(qx, 0), np.maximum(qy, 0)
    result: FloatArray = (
        np.sqrt(ox * ox + oy * oy) + np.minimum(np.maximum(qx, qy), 0) - np.float32(radius)
    )
    return result


def triangle(
    w: Window, a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]
) -> FloatArray:
    """Distance to a triangle with corners in clockwise order on the screen; float32 [h, w]."""
    d: FloatArray | None = None
    for (px, py), (qx, qy) in ((a, b), (b, c), (c, a)):
        dx, dy = qx - px, qy - py
        length = math.sqrt(dx * dx + dy * dy)
        side = (w.x - px) * np.float32(dy / length) - (w.y - py) * np.float32(dx / length)
        d = side if d is None else np.maximum(d, side)
    assert d is not None
    return d


def segment(
    x: FloatArray, y: FloatArray, ax: float, ay: float, bx: float, by: float, radius: float
) -> FloatArray:
    """Distance to a thick line from (ax, ay) to (bx, by) with round ends; float32 [h, w]."""
    dx, dy = bx - ax, by - ay
    px, py = x - ax, y - ay
    t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
    px -= t * dx
    py -= t * dy
    result: FloatArray = np.sqrt(px * px + py * py) - np.float32(radius)
    return result


def arc_stroke(
    x: FloatArray,
    y: FloatArray,
    cx: float,
    half_width: float,
    middle: float,
    ends: float,
    radius: float,
) -> FloatArray:
    """Distance to a thick parabolic stroke.

    Args:
        x: float32 [h, w] drawing units.
        y: float32 [h, w] drawing units.
        cx: place of the middle of the stroke.
        half_width: horizontal reach from the middle to either end.
        middle: y of the stroke at its middle.
        ends: y of the stroke at both ends (below `middle` in value means corners up).
        radius: half the thickness; the ends are rounded.

    Returns:
        float32 [h, w], first-order accurate near the stroke.
    """
    px = np.abs(x - cx)
    inner = np.minimum(px, half_width)
    bend = (ends - middle) / (half_width * half_width)
    slope = 2.0 * bend * inner
    over = px - inner
    dy = (y - middle - bend * inner * inner) / np.sqrt(1 + slope * slope)
    result: FloatArray = np.sqrt(over * over + dy * dy) - np.float32(radius)
    return result


def lens(
    x: FloatArray, y: FloatArray, half_width: float, corner: float, top: float, bottom: float
) -> FloatArray:
    """Distance to the region between two parabolas that share two corners at the same height.

    Args:
        x: float32 [h, w] drawing units.
        y: float32 [h, w] drawing units.
        half_width: horizontal reach of the region.
        corner: y of both corners.
        top: y of the upper outline at x = 0.
        bottom: y of the lower outline at x = 0; greater than `top`.

    Returns:
        float32 [h, w], negative inside.
    """
    square = x * x
    sides = []
    for middle, sign in ((top, -1.0), (bottom, 1.0)):
        bend = (corner - middle) / (half_width * half_width)
        length = np.sqrt(1 + (4.0 * bend * bend) * square)
        sides.append(sign * (y - middle - bend * square) / length)
    result: FloatArray = np.maximum(sides[0], sides[1])
    return result


@dataclass(frozen=True)
class Window:
    """A rectangle of canvas pixels with its drawing coordinates.

    Attributes:
        rows: pixel rows.
        columns: pixel columns.
        x: float32 [h, w] drawing units, to the right.
        y: float32 [h, w] drawing units, downwards.
    """

    rows: slice
    columns: slice
    x: FloatArray
    y: FloatArray


class Canvas:
    """A square picture in floating point, drawn upon in a rotated and scaled frame.

    Attributes:
        size: height and width in pixels.
        pixels: float32 [3, size, size] in [0, 255]; channels first, to broadcast coverage cheaply.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels: FloatArray = np.zeros((3, size, size), dtype=np.float32)
        self._line = np.arange(size, dtype=np.float32) + np.float32(0.5)
        self.set_frame(0.0, 0.0, 0.0, 1.0)

    def set_frame(self, cx: float, cy: float, angle: float, scale: float) -> None:
        """Places the drawing frame.

        Args:
            cx: pixel column of the frame's origin.
            cy: pixel row of the frame's origin.
            angle: clockwise turn in radians.
            scale: pixels for each drawing unit, positive.
        """
        self._origin, self._scale = (cx, cy), scale
        self._cos, self._sin = math.cos(angle), math.sin(angle)
        px, py = (self._line - cx) / scale, (self._line - cy) / scale
        self._x = px[None, :] * self._cos + py[:, None] * self._sin
        self._y = py[:, None] * self._cos - px[None, :] * self._sin

    def window(self, cx: float, cy: float, hx: float, hy: float) -> Window:
        """Pixels that hold a box of half sides hx, hy about (cx, cy), in drawing units."""
        c, s, k = self._cos, self._sin, self._scale
        mx, my = self._origin[0] + k * (c * cx - s * cy), self._origin[1] + k * (s * cx + c * cy)
        rx = k * (abs(c) * hx + abs(s) * hy) + 1.0
        ry = k * (abs(s) * hx + abs(c) * hy) + 1.0
        rows = slice(max(0, math.floor(my - ry)), max(0, min(self.size, math.ceil(my + ry))))
        columns = slice(max(0, math.floor(mx - rx)), max(0, min(self.size, math.ceil(mx + rx))))
        return Window(rows, columns, self._x[rows, columns], self._y[rows, columns])

    def coverage(self, distance: FloatArray, softness: float = 0.0) -> FloatArray:
        """Share of each pixel that a shape covers.

        Args:
            distance: float32 [h, w] drawing units.
            softness: width of the blur of the outline in drawing units, >= 0.

        Returns:
            float32 [h, w] in [0, 1].
        """
        slope = self._scale / (1.0 + softness * self._scale)
        result: FloatArray = np.clip(np.float32(0.5) - distance * np.float32(slope), 0, 1)
        return result

    def blend(self, window: Window, alpha: FloatArray, colour: FloatArray) -> None:
        """Lays a colour over the window.

        Args:
            window: where.
            alpha: float32 [h, w] in [0, 1].
            colour: float32 [3], or [3, h, w] for a shaded one, in [0, 255].
        """
        target = self.pixels[:, window.rows, window.columns]
        source = colour[:, None, None] if colour.ndim == 1 else colour
        target += alpha * (source - target)

    def paint(
        self,
        window: Window,
        distance: FloatArray,
        colour: FloatArray,
        opacity: float = 1.0,
        softness: float = 0.0,
    ) -> None:
        """Fills a shape: `blend` with the `coverage` of its distance times an opacity in [0, 1]."""
        alpha = self.coverage(distance, softness)
        if opacity != 1.0:
            alpha *= np.float32(opacity)
        self.blend(window, alpha, colour)

    def finish(self, grain: FloatArray | None = None) -> NDArray[np.uint8]:
        """Rounds the picture, with grain [3, size, size] added; uint8 [size, size, 3]."""
        values = self.pixels if grain is None else self.pixels + grain
        rounded = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))


def contact_sheet(images: NDArray[np.uint8], columns: int, gap: int = 0) -> NDArray[np.uint8]:
    """Lays pictures out in rows, left to right.

    Args:
        images: uint8 [n, h, w, c], n >= 1.
        columns: pictures in a row, positive.
        gap: white pixels between neighbours.

    Returns:
        uint8 [H, W, c]; places without a picture are white.

    Raises:
        ValueError: no pictures, a wrong number of axes, or no columns.
    """
    if images.ndim != 4 or len(images) == 0 or columns < 1:
        raise ValueError(f"cannot lay out shape {images.shape} in {columns} columns")
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, dtype=np.uint8)
    for index in range(n):
        top, left = index // columns * (h + gap), index % columns * (w + gap)
        sheet[top : top + h, left : left + w] = images[index]
    return sheet
