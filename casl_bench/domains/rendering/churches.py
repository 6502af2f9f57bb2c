"""Drawn churches whose ten attributes are known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from casl_bench.domains.dataset import DATASETS, Concept
from casl_bench.domains.rendering import shapes
from casl_bench.domains.rendering.captions import Phrases, Wording
from casl_bench.domains.rendering.renderer import Drawing, Picture
from casl_bench.domains.rendering.shapes import FloatArray, Window, colours
from casl_bench.domains.rendering.shipped import rendered_dataset

ATTRIBUTES: tuple[str, ...] = (
    "brick", "spire", "dome", "snow", "night", "tree", "clock", "fence", "ivy", "balloon",
)  # fmt: skip
CONCEPTS: tuple[Concept, ...] = (
    Concept("brick", "a church with plaster walls", "a church with brick walls", "brick"),
    Concept("spire", "a church with a flat tower", "a church with a gothic spire", "spire"),
    Concept("dome", "a church without a dome", "a church with a dome", "dome"),
    Concept("snow", "a church without snow", "a church with snow", "snow"),
    Concept("night", "a church by day", "a church at night", "night"),
    Concept("tree", "a church without a tree", "a church with a tree", "tree"),
    Concept("clock", "a church without a clock", "a church with a clock", "clock"),
    Concept("fence", "a church without a fence", "a church with a fence", "fence"),
)
TUNING_CONCEPTS: tuple[Concept, ...] = (
    Concept("ivy", "a church without ivy", "a church with ivy", "ivy"),
    Concept("balloon", "a church without a balloon", "a church with a balloon", "balloon"),
)
NUISANCE: tuple[str, ...] = (
    "centre_x", "ground", "size", "lean", "tower_width", "tower_height", "nave_width",
    "nave_height", "roof_pitch", "wall_tone", "roof_tone", "spire_height", "dome_size",
    "dome_tone", "window_size", "window_glow", "door_tone", "tree_height", "tree_width",
    "tree_tone", "grass_tone", "hill_height", "hill_place", "sky_tone", "cloud_place",
    "cloud_height", "moon_place", "star_place", "light_direction", "light_strength",
    "clock_hands", "fence_tone", "ivy_phase", "ivy_tone", "balloon_place",
    "balloon_tone", "grain",
)  # fmt: skip
SCENERY: tuple[str, ...] = tuple(
    name
    for name in NUISANCE
    if name.startswith(("grass", "hill", "sky", "cloud", "moon", "star", "light", "balloon"))
)
UNREAD: tuple[str, ...] = (
    "grain", "spire_height", "dome_size", "dome_tone", "tree_height", "tree_width", "tree_tone",
    "grass_tone", "door_tone", "window_glow", "cloud_place", "cloud_height", "moon_place",
    "star_place", "sky_tone", "clock_hands", "fence_tone", "ivy_phase", "ivy_tone",
    "balloon_place", "balloon_tone",
)  # fmt: skip

# No plaster comes near red, no brick near cream, by day or by night.
_PLASTER = colours((240, 230, 208), (230, 222, 202), (222, 214, 190))
_BRICK = colours((186, 72, 50), (170, 62, 46), (196, 84, 58))
_ROOF = colours((78, 92, 118), (92, 86, 100), (104, 90, 82))
_DOME = colours((84, 176, 150), (72, 160, 164), (110, 184, 140))
# Darker than a day sky and lighter than a night one.
_SPIRE = colours((98, 108, 162), (116, 98, 152))
_DOOR = colours((104, 66, 40), (78, 52, 44), (70, 60, 80))
_TREE = colours((40, 104, 56), (60, 120, 52), (34, 92, 70))
_TRUNK = colours((84, 58, 42))[0]
_GRASS = colours((122, 164, 82), (146, 160, 86), (104, 150, 92))
_SKY_DAY = colours((132, 190, 236), (150, 204, 240), (168, 206, 228))
_SKY_NIGHT = colours((20, 26, 66), (26, 24, 74), (16, 32, 70))
_SNOW = colours((246, 249, 255))[0]
_WHITE = colours((252, 252, 250))[0]
_GLASS = colours((58, 70, 96))[0]
_CLOCK_RIM = colours((48, 40, 44))[0]
_GLOW = colours((255, 206, 84), (255, 222, 120))
_MOON = colours((250, 240, 200))[0]
_FENCE = colours((150, 86, 40), (128, 70, 38), (166, 104, 52))
_IVY = colours((70, 150, 56), (92, 160, 60), (60, 140, 76))
_BALLOON = colours((236, 60, 60), (240, 120, 30), (222, 60, 140))
_NIGHT_TINT = colours((140, 144, 190))[0] / np.float32(255.0)


class _Church(Picture):
    """One picture in the making.

    The frame has its origin on the ground below the middle of the church; its unit is one pixel at
    mean size.
    """

    attributes = ATTRIBUTES
    nuisance = NUISANCE
    light_range = 0.08

    def __init__(self, attributes: Sequence[bool], nuisance: Sequence[float]) -> None:
        super().__init__(attributes, nuisance)
        v = self.v
        self.wall = shapes.palette(_BRICK if self.on["brick"] else _PLASTER, v["wall_tone"])
        self.roof = _SNOW if self.on["snow"] else shapes.palette(_ROOF, v["roof_tone"])
        self.tower_x = -13.5
        self.tower_hx = 6.0 + 0.9 * v["tower_width"]
        self.tower_top = -26.6 - 2.0 * v["tower_height"]
        self.nave_end = 16.5 + 2.4 * v["nave_width"]
        self.nave_top = -14.5 - 2.0 * v["nave_height"]
        self.ridge = self.nave_top - 8.6 - 1.8 * v["roof_pitch"]

    def paint(self) -> None:
        """All, from back to front."""
        v = self.v
        self.sky()
        cx, cy = 29.4 + 3.6 * (v["centre_x"] - 0.5), 53.0 + 2.4 * (v["ground"] - 0.5)
        lean = math.radians(3.0 * (v["lean"] - 0.5))
        self.canvas.set_frame(cx, cy, lean, 1.09 + 0.10 * (v["size"] - 0.5))
        self.land()
        if self.on["dome"]:
            self.dome()
        self.nave()
        self.tower()
        if self.on["tree"]:
            self.tree()
        if self.on["fence"]:
            self.fence()
        if self.on["balloon"]:
            self.balloon()

    def lit(self, colour: FloatArray) -> FloatArray:
        """A colour [3] as it looks at this time of day."""
        return colour * _NIGHT_TINT if self.on["night"] else colour

    def shaded(self, colour: FloatArray, w: Window) -> FloatArray:
        """A colour [3] at this time of day and in this light; float32 [3, h, w]."""
        across, down = np.float32(self.light[0] / 18.0), np.float32(self.light[1] / 20.0)
        light: FloatArray = w.x * across + (w.y + 18.0) * down + np.float32(1.0)
        return self.lit(colour)[:, None, None] * light

    def sky(self) -> None:
        """A blue sky with a cloud, or a dark one with moon and stars."""
        v, canvas = self.v, self.canvas
        night = self.on["night"]
        top = shapes.palette(_SKY_NIGHT if night else _SKY_DAY, v["sky_tone"])
        bottom = top + np.float32(0.16 if night else 0.5) * (_WHITE - top)
        canvas.set_frame(0.0, 0.0, 0.0, 1.0)
        w = canvas.window(32.0, 32.0, 33.0, 33.0)
        t = np.clip(w.y / 52.0, 0, 1)
        canvas.pixels[:] = top[:, None, None] + t * (bottom - top)[:, None, None]
        if night:
            moon_x = 36.0 + 20.0 * v["moon_place"]
            moon = shapes.ellipse(w.x, w.y, moon_x, 8.5, 4.4, 4.4)
            canvas.paint(w, moon - 2.5, _MOON, 0.22, 3.0)
            canvas.paint(w, moon, _MOON)
            for k in range(6):
                place = v["star_place"] + k * 0.381966
                x = 3.0 + 58.0 * (place - math.floor(place))
                y = 3.0 + 4.3 * k
                canvas.paint(w, shapes.ellipse(w.x, w.y, x, y, 1.2, 1.2), _WHITE, 0.85)
            return
        x, y = 30.0 + 24.0 * v["cloud_place"], 7.0 + 6.0 * v["cloud_height"]
        cloud = shapes.ellipse(w.x, w.y, x, y, 8.0, 2.8)
        cloud = np.minimum(cloud, shapes.ellipse(w.x, w.y, x + 3.0, y - 2.4, 4.6, 3.0))
        canvas.paint(w, cloud, _WHITE, 0.75, 1.2)

    def land(self) -> None:
        """A hill far away and the ground."""
        v, canvas = self.v, self.canvas
        grass = _SNOW if self.on["snow"] else shapes.palette(_GRASS, v["grass_tone"])
        w = canvas.window(0.0, 4.0, 46.0, 22.0)
        x, top = -20.0 + 40.0 * v["hill_place"], 7.0 + 5.0 * v["hill_height"]
        hill = shapes.ellipse(w.x, w.y, x, 2.0, 34.0, top)
        canvas.paint(w, hill, self.shaded(grass * np.float32(0.84), w))
        near = np.float32(-1.5) - w.y + w.x * w.x * np.float32(0.0012)
        canvas.paint(w, near, self.shaded(grass, w))
        path = np.abs(w.x + 13.5) - (1.6 + 0.26 * np.maximum(w.y, 0))
        gravel = colours((196, 184, 166))[0]
        canvas.paint(w, np.maximum(path, -0.5 - w.y), self.shaded(gravel, w), 0.8, 0.5)

    def walls(self, w: Window, distance: FloatArray) -> None:
        """Plaster, or bricks in courses."""
        canvas = self.canvas
        canvas.paint(w, distance, self.shaded(self.wall, w))
        if self.on["brick"]:
            row = w.y * np.float32(1.0 / 4.4)
            course = np.abs(row - np.floor(row) - np.float32(0.5)) * np.float32(4.4)
            joint = np.maximum(distance + 0.4, course - 0.7)
            canvas.paint(w, joint, self.shaded(self.wall * np.float32(0.62), w), 0.7)

    def window_of(self, x: float, y: float, half: float, height: float) -> None:
        """A pointed arch: dark glass by day, lit at night."""
        canvas, v = self.canvas, self.v
        w = canvas.window(x, y, half + 2.0, height + 2.0)
        arch = shapes.rounded_box(w.x, w.y, x, y, half, height, half * 0.95)
        canvas.paint(w, arch - 0.8, self.lit(self.wall * np.float32(0.55)))
        glow = shapes.palette(_GLOW, v["window_glow"])
        canvas.paint(w, arch, glow if self.on["night"] else _GLASS)

    def nave(self) -> None:
        """Walls, roof and windows of the long part."""
        canvas, end, top, ridge = self.canvas, self.nave_end, self.nave_top, self.ridge
        start = self.tower_x
        middle, half = (start + end) / 2.0, (end - start) / 2.0
        w = canvas.window(middle, ridge / 2.0, half + 4.0, -ridge / 2.0 + 4.0)
        body = shapes.rounded_box(w.x, w.y, middle, top / 2.0, half, -top / 2.0, 0.3)
        self.walls(w, body)
        # The roof is a band that narrows towards the ridge.
        rise = np.float32(1.0 / (top - ridge))
        edge = end + 1.6 - 5.0 * np.clip((np.float32(top + 0.8) - w.y) * rise, 0, 1)
        sides = np.maximum(w.x - edge, start - w.x)
        roof = np.maximum(sides, np.maximum(ridge - w.y, w.y - top - 0.8))
        canvas.paint(w, roof, self.shaded(self.roof, w))
        eaves = np.maximum(np.maximum(w.x - end - 1.6, start - w.x), np.abs(w.y - top - 0.4) - 0.6)
        canvas.paint(w, eaves, self.lit(self.roof * np.float32(0.62)))
        size = 1.8 + 0.4 * self.v["window_size"]
        for x in (-1.8, 4.6, 11.0):
            self.window_of(x, top / 2.0, size, 3.6)
        if self.on["ivy"]:
            self.ivy(end, top)

    def tower(self) -> None:
        """The tower with its door, window and top: a spire or battlements."""
        canvas, v, x, hx, top = self.canvas, self.v, self.tower_x, self.tower_hx, self.tower_top
        w = canvas.window(x, top / 2.0, hx + 3.0, -top / 2.0 + 6.0)
        self.walls(w, shapes.rounded_box(w.x, w.y, x, top / 2.0, hx, -top / 2.0, 0.3))
        if self.on["spire"]:
            self.spire()
        else:
            for k in (-1.0, 0.0, 1.0):
                tooth = shapes.rounded_box(w.x, w.y, x + k * (hx - 1.3), top - 0.8, 1.7, 1.9, 0.3)
                canvas.paint(w, tooth, self.shaded(self.wall * np.float32(0.9), w))
        ledge = shapes.rounded_box(w.x, w.y, x, top + 1.2, hx + 1.0, 0.9, 0.4)
        snowy = _SNOW if self.on["snow"] else self.wall * np.float32(0.6)
        canvas.paint(w, ledge, self.lit(snowy))
        if self.on["clock"]:
            self.clock(x, top + 8.4)
        else:
            self.window_of(x, top + 8.4, 2.0 + 0.4 * v["window_size"], 3.8)
        w = canvas.window(x, -4.0, 5.0, 7.0)
        door = shapes.rounded_box(w.x, w.y, x, -3.6, 2.9, 4.8, 2.7)
        door = np.maximum(door, w.y)
        canvas.paint(w, door - 0.8, self.lit(self.wall * np.float32(0.5)))
        canvas.paint(w, door, self.lit(shapes.palette(_DOOR, v["door_tone"])))

    def clock(self, x: float, y: float) -> None:
        """A large round clock face on the tower, lit at night, with two hands."""
        canvas = self.canvas
        w = canvas.window(x, y, 7.0, 7.0)
        face = shapes.ellipse(w.x, w.y, x, y, 4.8, 4.8)
        canvas.paint(w, face - 1.1, _CLOCK_RIM)
        canvas.paint(w, face, _WHITE)
        angle = math.tau * self.v["clock_hands"]
        for turn, length in ((angle, 3.6), (angle + 2.1, 2.8)):
            end = (x + length * math.cos(turn), y + length * math.sin(turn))
            canvas.paint(w, shapes.segment(w.x, w.y, x, y, *end, 0.6), _CLOCK_RIM)

    def fence(self) -> None:
        """Wooden pickets with two rails along the whole foreground."""
        canvas = self.canvas
        wood = self.lit(shapes.palette(_FENCE, self.v["fence_tone"]))
        w = canvas.window(0.0, 5.4, 40.0, 6.0)
        place = w.x * np.float32(1.0 / 5.4)
        across = np.abs(place - np.floor(place) - np.float32(0.5)) * np.float32(5.4)
        # Each picket ends in a point.
        picket = np.maximum(across - 1.5, np.abs(w.y - 6.0) - 5.0 + 0.9 * across)
        rails = np.abs(np.abs(w.y - 6.0) - 2.2) - 0.7
        canvas.paint(w, np.minimum(picket, rails) - 0.5, wood * np.float32(0.5))
        canvas.paint(w, np.minimum(picket, rails), wood)

    def ivy(self, right: float, top: float) -> None:
        """Leaves over the foot of the long wall that climb up between its windows."""
        canvas, v = self.canvas, self.v
        leaf = shapes.palette(_IVY, v["ivy_tone"])
        left = self.tower_x + self.tower_hx
        w = canvas.window((left + right) / 2.0, -7.0, (right - left) / 2.0 + 2.0, 9.0)
        wave = w.x * np.float32(0.156) + np.float32(v["ivy_phase"])
        wave = np.abs(wave - np.floor(wave) - np.float32(0.5)) * np.float32(2.0)
        height = 3.6 + 9.0 * wave * wave
        d = np.maximum(-height - w.y, np.maximum(left - w.x, w.x - right))
        d = np.maximum(d, np.maximum(w.y, np.float32(top) - w.y))
        canvas.paint(w, d, self.shaded(leaf * np.float32(0.72), w))
        spot_x, spot_y = w.x * np.float32(1.0 / 4.0), w.y * np.float32(1.0 / 3.6)
        spot_x = spot_x + np.float32(0.5) * (np.floor(spot_y) % np.float32(2.0))
        fx = (spot_x - np.floor(spot_x) - np.float32(0.5)) * np.float32(4.0)
        fy = (spot_y - np.floor(spot_y) - np.float32(0.5)) * np.float32(3.6)
        tufts = np.maximum(shapes.ellipse(fx, fy, 0.0, 0.0, 1.6, 1.4), d + 0.3)
        canvas.paint(w, tufts, self.lit(leaf * np.float32(1.25)), 0.9, 0.4)

    def balloon(self) -> None:
        """A striped hot-air balloon in the upper right of the sky."""
        canvas, v = self.canvas, self.v
        canvas.set_frame(0.0, 0.0, 0.0, 1.0)
        x, y = 51.0 + 4.0 * v["balloon_place"], 10.4
        w = canvas.window(x, y + 3.0, 10.0, 14.0)
        basket = shapes.rounded_box(w.x, w.y, x, y + 12.4, 2.4, 1.8, 0.6)
        ropes = shapes.segment(np.abs(w.x - x), w.y, 5.0, y + 4.0, 2.0, y + 11.0, 0.4)
        canvas.paint(w, np.minimum(basket, ropes), _TRUNK)
        ball = shapes.ellipse(w.x, w.y, x, y, 7.8, 8.2)
        canvas.paint(w, ball - 0.7, _CLOCK_RIM)
        canvas.paint(w, ball, shapes.palette(_BALLOON, v["balloon_tone"]))
        canvas.paint(w, np.maximum(ball, np.abs(np.abs(w.x - x) - 3.8) - 1.3), _GLOW[1])

    def spire(self) -> None:
        """A tall pointed roof with a cross."""
        canvas, x, hx, base = self.canvas, self.tower_x, self.tower_hx, self.tower_top
        tip = base - 16.0 - 1.5 * self.v["spire_height"]
        colour = _SNOW if self.on["snow"] else shapes.palette(_SPIRE, self.v["roof_tone"])
        w = canvas.window(x, (base + tip) / 2.0, hx + 4.0, (base - tip) / 2.0 + 4.0)
        left, right = (x - hx - 2.2, base + 1.0), (x + hx + 2.2, base + 1.0)
        spire = shapes.triangle(w, left, (x, tip), right)
        canvas.paint(w, spire - 0.3, self.lit(colour * np.float32(0.55)))
        canvas.paint(w, spire + 0.3, self.shaded(colour, w))
        # The side away from the light is darker, so that a white spire shows before a white sky.
        canvas.paint(w, np.maximum(spire + 0.3, x - w.x), self.lit(colour * np.float32(0.66)), 0.8)
        gold = self.lit(_GLOW[0])
        canvas.paint(w, shapes.segment(w.x, w.y, x, tip - 2.6, x, tip + 0.5, 0.9), gold)

    def dome(self) -> None:
        """A large round dome on a drum, behind the roof's ridge."""
        canvas, v = self.canvas, self.v
        x, base = 3.6, self.ridge
        rx = 8.6 + 1.0 * v["dome_size"]
        height = rx * 1.12
        copper = shapes.palette(_DOME, v["dome_tone"])
        w = canvas.window(x, base - height / 2.0, rx + 3.0, height / 2.0 + 9.0)
        drum = shapes.rounded_box(w.x, w.y, x, base - 0.5, rx - 0.6, 3.6, 0.5)
        self.walls(w, drum)
        top = base - 3.6
        ball = np.maximum(shapes.ellipse(w.x, w.y, x, top, rx, height), w.y - top)
        canvas.paint(w, ball - 0.5, self.lit(copper * np.float32(0.5)))
        canvas.paint(w, ball, self.shaded(copper, w))
        for k in (-0.45, 0.0, 0.45):
            rib = shapes.segment(
                w.x, w.y, x + 1.1 * k * rx, top, x + 0.6 * k * rx, top - 0.9 * height, 0.5
            )
            canvas.paint(w, np.maximum(rib, ball), self.lit(copper * np.float32(0.6)), 0.7)
        if self.on["snow"]:
            cap = np.maximum(ball, w.y - top + height * np.float32(0.62))
            canvas.paint(w, cap, self.lit(_SNOW), softness=0.6)
        lantern = shapes.segment(w.x, w.y, x, top - height - 3.0, x, top - height, 0.8)
        canvas.paint(w, lantern, self.lit(_GLOW[0]))

    def tree(self) -> None:
        """A large round tree in front, at the right."""
        canvas, v = self.canvas, self.v
        leaf = shapes.palette(_TREE, v["tree_tone"])
        x, rx = 21.5, 7.6 + 1.6 * v["tree_width"]
        middle = -13.0 - 2.0 * v["tree_height"]
        w = canvas.window(x, -10.0, rx + 3.0, 20.0)
        trunk = shapes.segment(w.x, w.y, x, 2.0, x, -8.0, 1.8)
        canvas.paint(w, trunk, self.lit(_TRUNK))
        crown = shapes.ellipse(w.x, w.y, x, middle, rx, 11.5)
        for dx, dy, r in ((-4.6, 5.0, 5.2), (4.6, 5.4, 5.2), (-3.6, -4.6, 5.6), (3.8, -4.2, 5.6)):
            crown = np.minimum(crown, shapes.ellipse(w.x, w.y, x + dx, middle + dy, r, r))
        canvas.paint(w, crown - 0.5, self.lit(leaf * np.float32(0.55)))
        canvas.paint(w, crown, self.shaded(leaf, w))
        for dx, dy in ((-3.0, -4.0), (2.6, 1.0), (-2.4, 5.0)):
            tuft = shapes.ellipse(w.x, w.y, x + dx, middle + dy, 2.8, 2.0)
            canvas.paint(w, tuft, self.lit(leaf * np.float32(1.3)), 0.7, 0.8)
        if self.on["snow"]:
            for dx, dy, r in ((0.0, -9.0, 4.6), (-5.0, -2.6, 2.8), (5.0, -2.0, 2.8)):
                cap = shapes.ellipse(w.x, w.y, x + dx, middle + dy, r, 1.9)
                canvas.paint(w, np.maximum(cap, crown), self.lit(_SNOW), softness=0.4)


_COMMON: Phrases = {
    "brick": (("with brick walls",), ("with plaster walls",)),
    "spire": (("with a gothic spire",), ("with a flat tower",)),
    "dome": (("with a dome",), ("without a dome",)),
    "snow": (("with snow",), ("without snow",)),
    "night": (("at night",), ("by day",)),
    "tree": (("with a tree",), ("without a tree",)),
    "clock": (("with a clock",), ("without a clock",)),
    "fence": (("with a fence",), ("without a fence",)),
    "ivy": (("with ivy",), ("without ivy",)),
    "balloon": (("with a balloon",), ("without a balloon",)),
}
_EXTRA: dict[str, Phrases] = {
    "portrait": {
        "brick": (("with red walls",), ("with pale walls",)),
        "spire": (("gothic",), ("without a spire",)),
        "dome": (("domed",), ()),
        "snow": (("in the snow",), ("on grass",)),
        "night": (("under a dark sky",), ("under a blue sky",)),
        "tree": (("beside a tree",), ()),
        "clock": (("with a tower clock",), ()),
        "fence": (("fenced",), ("unfenced",)),
        "ivy": (("overgrown",), ("with bare walls",)),
        "balloon": (("under a balloon",), ()),
    },
    "building": {
        "brick": (("of red brick",), ("of white plaster",)),
        "spire": (("with a pointed tower",), ("with battlements",)),
        "dome": (("with a round dome",), ("with a plain roof",)),
        "snow": (("snowy",), ("in summer",)),
        "night": (("with lit windows", "under a moon"), ("in the daytime",)),
        "tree": (("with a tree in front",), ("with nothing in front",)),
        "clock": (("with a dial",), ("without a dial",)),
        "fence": (("with pickets",), ("without pickets",)),
        "ivy": (("with green leaves",), ("without leaves",)),
        "balloon": (("with an airship",), ("without an airship",)),
    },
}
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "portrait": (("a", "church"), ("a view of a", "church"), ("the", "church")),
    "building": (("a", "church"), ("a", "chapel"), ("a picture of a", "church")),
}

WORDING = Wording(
    common=_COMMON,
    extra=_EXTRA,
    nouns=_NOUNS,
    openers=("with", "without", "at", "by", "beside", "in", "of", "on", "under", "below"),
)
DRAWING = Drawing(
    name="rendered_churches",
    subject="churches",
    attributes=ATTRIBUTES,
    nuisance=NUISANCE,
    scenery=SCENERY,
    unread=UNREAD,
    concepts=CONCEPTS,
    picture=_Church,
    tuning_concepts=TUNING_CONCEPTS,
)

DATASETS.register("rendered_churches", partial(rendered_dataset, DRAWING))
