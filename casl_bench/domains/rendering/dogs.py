"""Drawn dogs whose ten attributes are known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from casl_bench.domains.dataset import DATASETS, Concept
from casl_bench.domains.rendering import shapes
from casl_bench.domains.rendering.captions import Phrases, Wording
from casl_bench.domains.rendering.renderer import Drawing, Picture
from casl_bench.domains.rendering.shapes import FloatArray, colours
from casl_bench.domains.rendering.shipped import rendered_dataset

ATTRIBUTES: tuple[str, ...] = (
    "tongue", "ears_up", "light_fur", "spots", "collar", "eyes_closed", "meadow", "sweater",
    "bow", "ball",
)  # fmt: skip
CONCEPTS: tuple[Concept, ...] = (
    Concept("tongue", "a dog with a closed mouth", "a dog with its tongue out", "tongue"),
    Concept("ears_up", "a dog with floppy ears", "a dog with pointed ears", "ears_up"),
    Concept("light_fur", "a dog with dark fur", "a dog with golden fur", "light_fur"),
    Concept("spots", "a dog without spots", "a dog with spots", "spots"),
    Concept("collar", "a dog without a collar", "a dog with a collar", "collar"),
    Concept("eyes_closed", "a dog with open eyes", "a dog with closed eyes", "eyes_closed"),
    Concept("meadow", "a dog before a wall", "a dog on a meadow", "meadow"),
    Concept("sweater", "a dog without a sweater", "a dog with a striped sweater", "sweater"),
)
TUNING_CONCEPTS: tuple[Concept, ...] = (
    Concept("bow", "a dog without a bow", "a dog with a bow", "bow"),
    Concept("ball", "a dog without a ball", "a dog with a ball", "ball"),
)
NUISANCE: tuple[str, ...] = (
    "centre_x", "centre_y", "size", "tilt", "gaze", "fur_tone", "spot_tone", "spot_place",
    "head_width", "muzzle_size", "muzzle_tone", "ear_length", "ear_spread", "eye_colour",
    "nose_tone", "collar_hue", "collar_value", "tag_size", "chest_size", "background_hue",
    "background_offset", "background_value", "background_angle", "light_direction",
    "light_strength", "horizon", "sun_place", "grass_tone", "sweater_hue", "bow_tone",
    "ball_place", "ball_tone", "grain",
)  # fmt: skip
SCENERY: tuple[str, ...] = tuple(
    name for name in NUISANCE if name.startswith(("background", "light", "horizon", "sun", "grass"))
)
UNREAD: tuple[str, ...] = (
    "grain", "spot_tone", "spot_place", "eye_colour", "nose_tone", "collar_hue", "collar_value",
    "tag_size", "gaze", "horizon", "sun_place", "grass_tone", "sweater_hue", "bow_tone",
    "ball_place", "ball_tone", "chest_size", "background_hue", "background_offset",
    "background_value", "background_angle",
)  # fmt: skip

# The darkest light coat stays far above the lightest dark one.
_FUR_LIGHT = colours((246, 230, 204), (240, 216, 176), (232, 200, 150))
_FUR_DARK = colours((54, 44, 46), (66, 48, 44), (80, 56, 46))
# Rust stands out from either coat.
_SPOTS = colours((206, 98, 40), (190, 84, 38), (214, 112, 52))
_EYES = colours((96, 62, 34), (70, 46, 30), (66, 96, 118))
_NOSE = colours((34, 28, 30), (58, 40, 38))
_WHITE = colours((252, 252, 250))[0]
_BLACK = colours((26, 22, 24))[0]
_TONGUE = colours((240, 100, 120))[0]
_THROAT = colours((110, 26, 40))[0]
_EAR_INSIDE = colours((232, 150, 140))[0]
_TAG = colours((250, 206, 60))[0]
_SKY = colours((120, 190, 248))[0]
_GRASS = colours((104, 176, 60), (130, 190, 70), (84, 158, 66))
_SUN = colours((255, 226, 90))[0]
# No coat, collar or tongue has these.
_BOWS = colours((255, 60, 150), (250, 90, 200), (240, 60, 90))
_BALLS = colours((240, 40, 44), (250, 90, 30), (230, 30, 90))


class _Dog(Picture):
    """One picture in the making.

    The head frame has its origin at the middle of the head; its unit is one pixel at mean size.
    """

    attributes = ATTRIBUTES
    nuisance = NUISANCE

    def __init__(self, attributes: Sequence[bool], nuisance: Sequence[float]) -> None:
        super().__init__(attributes, nuisance)
        v = self.v
        light = self.on["light_fur"]
        self.fur = shapes.palette(_FUR_LIGHT if light else _FUR_DARK, v["fur_tone"])
        self.spot = shapes.palette(_SPOTS, v["spot_tone"])
        # The muzzle is paler than the coat, whatever that is.
        share = np.float32(0.45 + 0.15 * v["muzzle_tone"] if light else 0.22)
        self.muzzle_colour = self.fur + share * (_WHITE - self.fur)
        self.head_rx = 15.2 + 1.6 * v["head_width"]

    def paint(self) -> None:
        """All, from back to front."""
        v = self.v
        cx, cy = 32.0 + 3.6 * (v["centre_x"] - 0.5), 28.4 + 3.6 * (v["centre_y"] - 0.5)
        scale = 1.0 + 0.14 * (v["size"] - 0.5)
        tilt = math.radians(12.0 * (v["tilt"] - 0.5))
        if self.on["meadow"]:
            self.meadow()
        else:
            self.background()
        self.canvas.set_frame(cx, cy, tilt / 2.0, scale)
        self.body()
        if self.on["collar"]:
            self.collar()
        self.canvas.set_frame(cx, cy, tilt, scale)
        if self.on["ears_up"]:
            self.upright_ears()
        self.head()
        if not self.on["ears_up"]:
            self.floppy_ears()
        self.eyes()
        self.muzzle()
        if self.on["bow"]:
            self.bow()
        if self.on["ball"]:
            self.ball()

    def background(self) -> None:
        """A wall: two related muted colours in a gradient, with a glow behind the head."""
        v, canvas = self.v, self.canvas
        value = 0.60 + 0.22 * v["background_value"]
        offset = 0.24 * (v["background_offset"] - 0.5)
        # From blue to pink: never the colour of a coat, nor of grass.
        hue = 0.52 + 0.38 * v["background_hue"]
        first = shapes.hsv(hue, 0.36 - 0.10 * v["background_value"], value)
        second = shapes.hsv(hue + 0.5 * offset, 0.26, value + 0.10)
        canvas.set_frame(32.0, 32.0, math.tau * v["background_angle"], 1.0)
        w = canvas.window(0.0, 0.0, 64.0, 64.0)
        t = np.clip(0.5 + w.x / 76.0, 0, 1)
        t = t * t * (3.0 - 2.0 * t)
        canvas.pixels[:] = first[:, None, None] + t * (second - first)[:, None, None]
        canvas.paint(w, shapes.ellipse(w.x, w.y, 0.0, 0.0, 22.0, 22.0), _WHITE, 0.20, 20.0)

    def meadow(self) -> None:
        """Outdoors: a clear sky with a low sun over green grass."""
        v, canvas = self.v, self.canvas
        canvas.set_frame(0.0, 0.0, 0.0, 1.0)
        w = canvas.window(32.0, 32.0, 33.0, 33.0)
        horizon = 34.0 + 8.0 * v["horizon"]
        t = np.clip(w.y / np.float32(horizon), 0, 1)
        canvas.pixels[:] = _SKY[:, None, None] + t * (0.7 * (_WHITE - _SKY))[:, None, None]
        sun = shapes.ellipse(w.x, w.y, 5.0 + 5.0 * v["sun_place"], 9.0, 6.0, 6.0)
        canvas.paint(w, sun - 2.0, _SUN, 0.35, 3.0)
        canvas.paint(w, sun, _SUN)
        grass = shapes.palette(_GRASS, v["grass_tone"])
        aside: FloatArray = w.x - np.float32(32.0)
        near: FloatArray = np.float32(horizon) - w.y + aside * aside * np.float32(0.004)
        depth = np.clip((w.y - np.float32(horizon)) / 30.0, 0, 1) * np.float32(0.25)
        canvas.paint(w, near, grass[:, None, None] * (1.0 - depth))

    def body(self) -> None:
        """Neck, shoulders and a paler chest."""
        canvas = self.canvas
        w = canvas.window(0.0, 28.0, 25.0, 20.0)
        neck = shapes.rounded_box(w.x, w.y, 0.0, 18.0, 12.0, 12.0, 5.0)
        shoulders = shapes.ellipse(w.x, w.y, 0.0, 38.0, 23.0, 18.0)
        body = np.minimum(neck, shoulders)
        if self.on["sweater"]:
            self.sweater(w, body)
            return
        canvas.paint(w, body, self.shaded(self.fur * np.float32(0.9), w))
        chest_rx = 6.0 + 3.0 * self.v["chest_size"]
        chest = shapes.ellipse(w.x, w.y, 0.0, 36.0, chest_rx, 10.0)
        canvas.paint(w, chest, self.muzzle_colour * np.float32(0.96), 0.9, 1.5)
        if self.on["spots"]:
            flank = shapes.ellipse(w.x, w.y, -13.5, 33.0, 6.5, 6.5)
            canvas.paint(w, flank, self.spot, softness=0.6)

    def sweater(self, w: shapes.Window, body: FloatArray) -> None:
        """Knitwear with broad stripes, green to teal and white."""
        colour = shapes.hsv(0.30 + 0.20 * self.v["sweater_hue"], 0.75, 0.55)
        self.canvas.paint(w, body - 0.4, self.shaded(colour, w))
        place = w.y * np.float32(1.0 / 6.0)
        stripe = (np.abs(place - np.floor(place) - np.float32(0.5)) - np.float32(0.25)) * 6.0
        self.canvas.paint(w, np.maximum(stripe, body + 0.4), self.shaded(_WHITE, w))

    def collar(self) -> None:
        """A wide band about the neck with a round tag."""
        v, canvas = self.v, self.canvas
        # From red over violet to blue, saturated: no coat and no tongue looks like it.
        colour = shapes.hsv(0.56 + 0.42 * v["collar_hue"], 0.86, 0.70 + 0.25 * v["collar_value"])
        w = canvas.window(0.0, 24.0, 17.0, 9.0)
        band = shapes.arc_stroke(w.x, w.y, 0.0, 12.2, 23.8, 20.4, 3.1)
        canvas.paint(w, band, self.shaded(colour, w))
        radius = 3.3 + 0.7 * v["tag_size"]
        tag = shapes.ellipse(w.x, w.y, 0.0, 27.8, radius, radius)
        canvas.paint(w, tag - 0.7, _BLACK, 0.8)
        canvas.paint(w, tag, _TAG)

    def upright_ears(self) -> None:
        """Two big pointed ears behind the head."""
        canvas, v = self.canvas, self.v
        tip_y = -22.5 - 2.0 * v["ear_length"]
        tip_x = 13.0 + 2.6 * v["ear_spread"]
        for side in (-1.0, 1.0):
            w = canvas.window(side * 10.5, -14.0, 9.0, 14.5)
            corners = [(side * 2.6, -11.0), (side * tip_x, tip_y), (side * 16.4, -2.0)]
            inner = [(side * 6.0, -11.6), (side * (tip_x - 0.6), tip_y + 5.4), (side * 13.6, -6.0)]
            if side < 0:
                corners.reverse()
                inner.reverse()
            outer = shapes.triangle(w, *corners) - np.float32(0.8)
            canvas.paint(w, outer, self.shaded(self.fur * np.float32(0.82), w))
            canvas.paint(w, shapes.triangle(w, *inner), _EAR_INSIDE, softness=0.4)

    def floppy_ears(self) -> None:
        """Two long ears that hang in front of the cheeks."""
        canvas, v = self.canvas, self.v
        end = 11.0 + 3.0 * v["ear_length"]
        x = self.head_rx - 0.4 + 1.4 * v["ear_spread"]
        for side in (-1.0, 1.0):
            w = canvas.window(side * x, 1.0, 8.0, end + 8.0)
            middle, half = (end - 9.0) / 2.0, (end + 9.0) / 2.0
            # Sheared outwards, the ear hangs away from the head.
            lean = w.x - np.float32(side * 0.10) * (w.y - np.float32(middle))
            ear = shapes.ellipse(lean, w.y, side * x, middle, 5.4, half)
            canvas.paint(w, ear - 0.6, self.fur * np.float32(0.48))
            canvas.paint(w, ear, self.shaded(self.fur * np.float32(0.74), w))

    def head(self) -> None:
        """The head with its spots."""
        canvas, rx = self.canvas, self.head_rx
        w = canvas.window(0.0, 0.0, rx + 2.0, 17.5)
        head = shapes.ellipse(w.x * (1.0 + 0.008 * w.y), w.y, 0.0, 0.0, rx, 15.6)
        canvas.paint(w, head - 0.5, self.fur * np.float32(0.62))
        canvas.paint(w, head, self.shaded(self.fur, w))
        if self.on["spots"]:
            shift = 1.6 * (self.v["spot_place"] - 0.5)
            eye = shapes.ellipse(w.x, w.y, -8.2 + shift, -3.4, 8.6, 10.4)
            brow = shapes.ellipse(w.x, w.y, 8.6 + shift, -9.6, 7.8, 7.0)
            patches = np.minimum(eye, brow)
            canvas.paint(w, np.maximum(patches, head + 0.6), self.spot, softness=0.6)

    def eyes(self) -> None:
        """Open eyes with a highlight, or closed ones: lids with a thick lash."""
        canvas, v = self.canvas, self.v
        iris = shapes.palette(_EYES, v["eye_colour"])
        gaze = 1.4 * (v["gaze"] - 0.5)
        for side in (-1.0, 1.0):
            cx, cy = side * 7.3, -4.0
            w = canvas.window(cx, cy, 7.0, 7.0)
            eye = shapes.ellipse(w.x, w.y, cx, cy, 5.0, 5.2)
            if self.on["eyes_closed"]:
                # A pale lid, so that the lash shows on a dark coat.
                lid = self.fur + np.float32(0.5) * (_WHITE - self.fur)
                canvas.paint(w, eye, lid)
                lash = shapes.arc_stroke(w.x, w.y, cx, 4.4, cy + 3.2, cy - 0.4, 1.3)
                canvas.paint(w, lash, _BLACK)
                continue
            canvas.paint(w, eye - 0.9, _BLACK)
            canvas.paint(w, eye, _WHITE)
            canvas.paint(w, shapes.ellipse(w.x, w.y, cx + gaze, cy + 0.3, 3.5, 3.7), iris)
            canvas.paint(w, shapes.ellipse(w.x, w.y, cx + gaze, cy + 0.3, 2.1, 2.3), _BLACK)
            canvas.paint(w, shapes.ellipse(w.x, w.y, cx + gaze + 1.2, cy - 1.1, 1.2, 1.2), _WHITE)

    def muzzle(self) -> None:
        """Muzzle, nose and the mouth: a closed line, or open with the tongue out."""
        canvas, v = self.canvas, self.v
        rx = 8.6 + 1.4 * v["muzzle_size"]
        w = canvas.window(0.0, 12.0, 11.5, 13.5)
        muzzle = shapes.ellipse(w.x, w.y, 0.0, 7.4, rx, 6.8)
        if self.on["tongue"]:
            jaw = shapes.ellipse(w.x, w.y, 0.0, 12.8, 7.2, 4.6)
            canvas.paint(w, jaw - 0.7, self.fur * np.float32(0.55))
            canvas.paint(w, jaw, _THROAT)
        canvas.paint(w, muzzle, self.shaded(self.muzzle_colour, w), softness=0.5)
        if self.on["tongue"]:
            mouth = shapes.lens(w.x, w.y, 7.0, 9.6, 10.6, 16.0)
            canvas.paint(w, mouth, _THROAT)
            tongue = shapes.rounded_box(w.x, w.y, 0.0, 16.4, 4.7, 6.6, 4.4)
            canvas.paint(w, tongue - 0.6, _TONGUE * np.float32(0.62))
            canvas.paint(w, tongue, _TONGUE)
            canvas.paint(w, shapes.segment(w.x, w.y, 0.0, 12.4, 0.0, 19.0, 0.45), _THROAT, 0.5)
        for side in (-1.0, 1.0):
            lip = shapes.arc_stroke(w.x - side * 3.2, w.y, 0.0, 3.1, 11.0, 9.2, 0.75)
            canvas.paint(w, lip, _BLACK, 0.9)
        nose = shapes.ellipse(w.x, w.y + 0.04 * w.x * w.x, 0.0, 3.6, 4.6, 3.2)
        canvas.paint(w, nose, shapes.palette(_NOSE, v["nose_tone"]))
        canvas.paint(w, shapes.ellipse(w.x, w.y, 1.3, 2.3, 1.5, 0.8), _WHITE, 0.55)
        canvas.paint(w, shapes.segment(w.x, w.y, 0.0, 6.0, 0.0, 9.6, 0.6), _BLACK, 0.9)

    def bow(self) -> None:
        """A ribbon tied on top of the head, between the ears."""
        canvas = self.canvas
        colour = shapes.palette(_BOWS, self.v["bow_tone"])
        w = canvas.window(0.0, -15.4, 12.0, 7.0)
        loops = shapes.ellipse(np.abs(w.x), w.y, 5.6, -15.4, 4.8, 4.4)
        canvas.paint(w, loops - 0.8, colour * np.float32(0.45))
        canvas.paint(w, loops, colour)
        knot = shapes.ellipse(w.x, w.y, 0.0, -15.4, 2.6, 2.8)
        canvas.paint(w, knot - 0.7, colour * np.float32(0.45))
        canvas.paint(w, knot, colour * np.float32(0.8))

    def ball(self) -> None:
        """A ball with a white band in the lower right corner, in front of the dog."""
        canvas, v = self.canvas, self.v
        canvas.set_frame(0.0, 0.0, 0.0, 1.0)
        x = 53.0 + 3.0 * v["ball_place"]
        w = canvas.window(x, 55.0, 9.0, 9.0)
        ball = shapes.ellipse(w.x, w.y, x, 55.0, 7.4, 7.4)
        canvas.paint(w, ball - 0.7, _BLACK)
        canvas.paint(w, ball, shapes.palette(_BALLS, v["ball_tone"]))
        canvas.paint(w, np.maximum(ball, np.abs(w.y - 55.0) - 1.9), _WHITE)


_COMMON: Phrases = {
    "tongue": (("with its tongue out",), ("with a closed mouth",)),
    "ears_up": (("with pointed ears",), ("with floppy ears",)),
    "light_fur": (("with golden fur",), ("with dark fur",)),
    "spots": (("with spots",), ("without spots",)),
    "collar": (("with a collar",), ("without a collar",)),
    "eyes_closed": (("with closed eyes",), ("with open eyes",)),
    "meadow": (("on a meadow",), ("before a wall",)),
    "sweater": (("with a striped sweater",), ("without a sweater",)),
    "bow": (("with a bow",), ("without a bow",)),
    "ball": (("with a ball",), ("without a ball",)),
}
_EXTRA: dict[str, Phrases] = {
    "portrait": {
        "tongue": (("panting",), ("without its tongue out",)),
        "ears_up": (("with its ears up",), ("with its ears down",)),
        "light_fur": (("golden",), ("dark",)),
        "spots": (("spotted",), ()),
        "collar": (("wearing a collar",), ()),
        "eyes_closed": (("sleepy",), ("awake",)),
        "meadow": (("in the grass",), ("in a room",)),
        "sweater": (("wearing a sweater",), ()),
        "bow": (("wearing a bow",), ()),
        "ball": (("beside a ball",), ()),
    },
    "pet": {
        "tongue": (("with mouth and tongue out",), ("with mouth shut",)),
        "ears_up": (("with upright ears",), ("with hanging ears",)),
        "light_fur": (("cream",), ("black",)),
        "spots": (("with patches",), ("plain",)),
        "collar": (("wearing a collar",), ("with a bare neck",)),
        "eyes_closed": (("sleeping",), ("with eyes open",)),
        "meadow": (("outdoors",), ("indoors",)),
        "sweater": (("wearing knitwear",), ("with bare shoulders",)),
        "bow": (("with a ribbon",), ("without a ribbon",)),
        "ball": (("with a toy",), ("without a toy",)),
    },
}
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "portrait": (("a", "dog"), ("a portrait of a", "dog"), ("the", "dog")),
    "pet": (("a", "dog"), ("a", "pet"), ("a picture of a", "dog")),
}

WORDING = Wording(
    common=_COMMON,
    extra=_EXTRA,
    nouns=_NOUNS,
    openers=("with", "without", "wearing", "on", "before", "in", "beside", "outdoors", "indoors"),
)
DRAWING = Drawing(
    name="rendered_dogs",
    subject="dogs",
    attributes=ATTRIBUTES,
    nuisance=NUISANCE,
    scenery=SCENERY,
    unread=UNREAD,
    concepts=CONCEPTS,
    picture=_Dog,
    tuning_concepts=TUNING_CONCEPTS,
)

DATASETS.register("rendered_dogs", partial(rendered_dataset, DRAWING))
