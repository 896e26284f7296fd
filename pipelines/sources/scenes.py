"""The drawings of the demo: ten things, each from strokes of one pen, in a scene with light, clutter and grain."""

import math
from collections.abc import Callable
from colorsys import hls_to_rgb
from functools import cache
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_SCALE = 2  # scenes are drawn twice as large, then reduced: smooth edges
_DARK = (25, 25, 30)


class Pen:
    """Draws in the object's own coordinates: the unit square about 0, y down, placed, sized and turned at random."""

    def __init__(self, random: Random, draw: "ImageDraw.ImageDraw", size_px: tuple[int, int]):
        side = min(size_px)
        self.random, self._draw = random, draw
        self._scale = side * random.uniform(0.62, 0.92)
        slack = [(length - 0.9 * self._scale) / 2 for length in size_px]
        self._x, self._y = (px / 2 + random.uniform(-0.5, 0.5) * room for px, room in zip(size_px, slack, strict=True))
        turn = math.radians(random.gauss(0, 7))
        self._cos, self._sin = math.cos(turn), math.sin(turn)
        self._flip = random.choice((-1, 1))
        self.colours = _palette(random)

    def _place(self, points) -> list[tuple[float, float]]:
        k, c, s = self._scale, self._cos, self._sin
        return [
            (self._x + k * (c * x * self._flip - s * y), self._y + k * (s * x * self._flip + c * y)) for x, y in points
        ]

    def polygon(self, points, colour, outline=None) -> None:
        self._draw.polygon(self._place(points), fill=colour, outline=outline)

    def rectangle(self, x0, y0, x1, y1, colour, outline=None) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, outline)

    def ellipse(self, x, y, radius_x, radius_y, colour, outline=None) -> None:
        self.polygon([(x + radius_x * c, y + radius_y * s) for c, s in _circle()], colour, outline)

    def line(self, points, width, colour) -> None:
        self._draw.line(self._place(points), fill=colour, width=max(1, round(width * self._scale)), joint="curve")


@cache
def _circle(corners: int = 40) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / corners for i in range(corners)]
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _balloon(pen: Pen) -> None:
    stripes = pen.random.choice((3, 5, 7))
    a, b, basket = pen.colours[:3]
    for i in range(stripes):  # ever narrower ellipses: the panels of the envelope
        pen.ellipse(0, -0.15, 0.34 * (1 - i / stripes), 0.35, (a, b)[i % 2])
    for x in (-0.11, 0.11):
        pen.line([(x * 2, 0.1), (x, 0.34)], 0.012, basket)
    pen.rectangle(-0.11, 0.34, 0.11, 0.48, basket)


def _brick_wall(pen: Pen) -> None:
    brick, mortar, other = pen.colours[:3]
    rows, columns = pen.random.randint(5, 8), pen.random.randint(3, 5)
    pen.rectangle(-0.7, -0.5, 0.7, 0.5, mortar)
    for row in range(rows):
        for column in range(-1, columns):
            x = -0.7 + 1.4 * (column + row % 2 / 2) / columns
            y, colour = -0.5 + row / rows, other if pen.random.random() < 0.15 else brick
            left, right = max(x, -0.7), min(x + 1.4 / columns - 0.025, 0.7)
            if left < right:
                pen.rectangle(left, y + 0.012, right, y + 1 / rows - 0.012, colour)


def _chessboard(pen: Pen) -> None:
    squares = pen.random.randint(4, 7)
    lean = pen.random.uniform(-0.25, 0.25)
    for row in range(squares):
        for column in range(squares):
            x0, x1, y0, y1 = (i / squares - 0.5 for i in (column, column + 1, row, row + 1))
            corners = [(x0 + lean * y0, y0), (x1 + lean * y0, y0), (x1 + lean * y1, y1), (x0 + lean * y1, y1)]
            pen.polygon(corners, pen.colours[(row + column) % 2])


def _daisy(pen: Pen) -> None:
    petals, turn = pen.random.randint(7, 12), pen.random.uniform(0, 1)
    petal, heart, stem = pen.colours[:3]
    pen.line([(0, 0), (0.05, 0.3), (0, 0.55)], 0.035, stem)
    for i in range(petals):
        angle = 2 * math.pi * (i + turn) / petals
        c, s = math.cos(angle), math.sin(angle)
        width = 0.9 / petals
        leaf = [(0.26 + 0.17 * x, width * y) for x, y in _circle(16)]
        pen.polygon([(c * x - s * y, s * x + c * y - 0.08) for x, y in leaf], petal)
    pen.ellipse(0, -0.08, 0.12, 0.12, heart)


def _fish(pen: Pen) -> None:
    body, fin, eye = pen.colours[:3]
    height = pen.random.uniform(0.16, 0.27)
    pen.polygon([(0.2, 0), (0.5, -0.22), (0.43, 0), (0.5, 0.22)], fin)
    pen.polygon([(-0.1, -height * 0.8), (0.1, -height - 0.16), (0.2, -height * 0.5)], fin)
    pen.ellipse(-0.08, 0, 0.38, height, body)
    for x in (-0.12, 0.0, 0.12):
        pen.line([(x, -height * 0.75), (x + 0.05, 0), (x, height * 0.75)], 0.022, fin)
    pen.ellipse(-0.32, -0.05, 0.045, 0.045, eye)
    pen.ellipse(-0.32, -0.05, 0.02, 0.02, _DARK)


def _house(pen: Pen) -> None:
    wall, roof, window = pen.colours[:3]
    top = pen.random.uniform(-0.16, 0.0)
    pen.rectangle(0.17, -0.42, 0.27, 0, wall)  # the chimney
    pen.rectangle(-0.36, top, 0.36, 0.46, wall)
    pen.polygon([(-0.46, top), (0, -0.48), (0.46, top)], roof)
    pen.rectangle(-0.08, 0.2, 0.08, 0.46, roof)
    for x in (-0.24, 0.24):
        pen.rectangle(x - 0.08, top + 0.08, x + 0.08, top + 0.23, window, outline=_DARK)


def _piano(pen: Pen) -> None:
    light, case = sorted(pen.colours[:3], key=sum, reverse=True)[:2]
    keys = pen.random.randint(6, 9)
    pen.rectangle(-0.62, -0.36, 0.62, 0.42, case)
    for i in range(keys):
        left = -0.55 + 1.1 * i / keys
        pen.rectangle(left, -0.28, left + 1.1 / keys, 0.36, light, outline=_DARK)
    for i in range(1, keys):
        if i % 7 not in (3, 0):
            middle = -0.55 + 1.1 * i / keys
            pen.rectangle(middle - 0.36 / keys, -0.28, middle + 0.36 / keys, 0.1, _DARK)


def _sailboat(pen: Pen) -> None:
    sail, hull, water = pen.colours[:3]
    pen.line([(0, -0.5), (0, 0.25)], 0.025, _DARK)
    pen.polygon([(-0.03, -0.46), (-0.03, 0.18), (-0.4, 0.18)], sail)
    pen.polygon([(0.04, -0.36), (0.04, 0.18), (0.33, 0.18)], sail)
    pen.polygon([(-0.45, 0.24), (0.45, 0.24), (0.3, 0.42), (-0.3, 0.42)], hull)
    for row in range(3):
        wave = [(-0.7 + 0.1 * i, 0.42 + 0.05 * row + 0.02 * (-1) ** i) for i in range(15)]
        pen.line(wave, 0.03, water)


def _snail(pen: Pen) -> None:
    shell, body, groove = pen.colours[:3]
    pen.polygon([(-0.48, 0.42), (-0.4, 0.1), (-0.3, 0.1), (-0.26, 0.3), (0.5, 0.42)], body)
    for x in (-0.46, -0.34):
        pen.line([(-0.37, 0.14), (x, -0.1)], 0.022, body)
    pen.ellipse(0.08, 0.02, 0.32, 0.32, shell)
    turns = pen.random.uniform(2.3, 3.2)
    angles = [2 * math.pi * turns * i / 70 for i in range(71)]
    spiral = [(0.3 * i / 70, angle) for i, angle in enumerate(angles)]
    pen.line([(0.08 + r * math.cos(a), 0.02 + r * math.sin(a)) for r, a in spiral], 0.035, groove)


def _wheel(pen: Pen) -> None:
    tyre, spoke, hub = pen.colours[:3]
    spokes, turn = pen.random.randint(6, 14), pen.random.uniform(0, 1)
    if pen.random.random() < 0.5:
        pen.ellipse(0, 0, 0.43, 0.43, pen.colours[3])
    for i in range(spokes):
        angle = 2 * math.pi * (i + turn) / spokes
        pen.line([(0, 0), (0.42 * math.cos(angle), 0.42 * math.sin(angle))], 0.022, spoke)
    pen.line([(0.43 * c, 0.43 * s) for c, s in (*_circle(), *_circle()[:2])], pen.random.uniform(0.07, 0.12), tyre)
    pen.ellipse(0, 0, 0.08, 0.08, hub)


SCENES: dict[str, Callable[[Pen], None]] = {
    "balloon": _balloon,
    "brick wall": _brick_wall,
    "chessboard": _chessboard,
    "daisy": _daisy,
    "fish": _fish,
    "house": _house,
    "piano": _piano,
    "sailboat": _sailboat,
    "snail": _snail,
    "wheel": _wheel,
}


def draw_scene(random: Random, name: str) -> "Image.Image":
    """One scene: a background, the object with its own colours, things in front of it, then light and grain."""
    from PIL import Image, ImageDraw

    width, height = random.randint(90, 200), random.randint(90, 200)
    canvas = _background(random, width * _SCALE, height * _SCALE)
    draw = ImageDraw.Draw(canvas)
    _clutter(random, draw, canvas.size, count=random.randint(0, 4))
    pen = Pen(random, draw, canvas.size)
    SCENES[name](pen)
    _clutter(random, draw, canvas.size, count=random.randint(0, 2), largest=0.08)
    return _light_and_grain(random, canvas.resize((width, height), Image.Resampling.BOX))


def _palette(random: Random) -> list[tuple[int, int, int]]:
    """Four colours of any hue, in lightness far enough apart that the object's parts can be told from each other."""
    lightness = [0.9, 0.25, 0.6, 0.4]
    if random.random() < 0.5:
        lightness = lightness[1::-1] + lightness[:1:-1]
    return [_colour(random, light + random.uniform(-0.08, 0.08), random.uniform(0.2, 1)) for light in lightness]


def _colour(random: Random, lightness: float, saturation: float, hue: float | None = None) -> tuple[int, int, int]:
    hue = random.random() if hue is None else hue % 1
    red, green, blue = hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _background(random: Random, width: int, height: int) -> "Image.Image":
    """A few blurred colours of middling lightness: sky, hills, rooms out of focus."""
    from PIL import Image

    columns, rows = random.randint(2, 4), random.randint(2, 4)
    small = Image.new("RGB", (columns, rows))
    hue, lightness, saturation = random.random(), random.uniform(0.3, 0.75), random.uniform(0.1, 0.7)
    colours = [
        _colour(random, lightness + random.uniform(-0.15, 0.15), saturation, hue=hue + random.gauss(0, 0.08))
        for _ in range(columns * rows)
    ]
    small.putdata(colours)
    method = random.choice((Image.Resampling.BICUBIC, Image.Resampling.BILINEAR))
    return small.resize((width, height), method)


def _clutter(random: Random, draw, size_px: tuple[int, int], count: int, largest: float = 0.3) -> None:
    """Strokes, blobs and patches that mean nothing."""
    width, height = size_px
    for _ in range(count):
        x, y = random.uniform(0, width), random.uniform(0, height)
        dx, dy = (random.uniform(0.02, largest) * min(size_px) for _ in range(2))
        colour = _colour(random, random.uniform(0.2, 0.85), random.uniform(0, 0.8))
        shape = random.choice(("ellipse", "line", "patch"))
        if shape == "ellipse":
            draw.ellipse((x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2), fill=colour)
        elif shape == "line":
            draw.line((x, y, x + 2 * dx * random.choice((-1, 1)), y + 2 * dy), fill=colour, width=random.randint(2, 7))
        else:
            draw.polygon([(x, y), (x + dx, y + dy / 3), (x + dx / 2, y + dy)], fill=colour)


def _light_and_grain(random: Random, image: "Image.Image") -> "Image.Image":
    """Light that falls off to one side, exposure, contrast and sensor noise."""
    import numpy as np
    from PIL import Image

    pixels_HWC = np.asarray(image, np.float32)
    height, width, _ = pixels_HWC.shape
    slope_x, slope_y = random.gauss(0, 0.22), random.gauss(0, 0.22)
    light_HW = 1 + slope_x * np.linspace(-0.5, 0.5, width) + slope_y * np.linspace(-0.5, 0.5, height)[:, None]
    contrast, exposure = random.uniform(0.75, 1.1), random.uniform(0.8, 1.2)
    pixels_HWC = ((pixels_HWC - 128) * contrast + 128) * (exposure * light_HW[..., None]).astype(np.float32)
    strength = random.choice((0, 3, 6, 9))
    if strength:
        noise = np.random.default_rng(random.getrandbits(64)).standard_normal((height, width, 1), np.float32)
        pixels_HWC += strength * noise
    return Image.fromarray(pixels_HWC.clip(0, 255).astype(np.uint8))
