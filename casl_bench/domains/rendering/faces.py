"""Drawn portraits whose ten attributes are known exactly."""

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
    "smiling", "eyeglasses", "beard", "hat", "blond", "bangs", "mouth_open", "pale",
    "striped_shirt", "earrings",
)  # fmt: skip
CONCEPTS: tuple[Concept, ...] = (
    Concept("smiling", "a sad face", "a smiling face", "smiling"),
    Concept("eyeglasses", "a face without eyeglasses", "a face with eyeglasses", "eyeglasses"),
    Concept("beard", "a face without a beard", "a face with a beard", "beard"),
    Concept("hat", "a face without a hat", "a face with a hat", "hat"),
    Concept("blond", "a face with dark hair", "a face with blond hair", "blond"),
    Concept("bangs", "a face without bangs", "a face with bangs", "bangs"),
    Concept("mouth_open", "a face with a closed mouth", "a face with an open mouth", "mouth_open"),
    Concept("pale", "a face with tan skin", "a face with pale skin", "pale"),
)
TUNING_CONCEPTS: tuple[Concept, ...] = (
    Concept("striped_shirt", "a face with a plain shirt", "a face with a striped shirt",
            "striped_shirt"),
    Concept("earrings", "a face without earrings", "a face with earrings", "earrings"),
)  # fmt: skip
NUISANCE: tuple[str, ...] = (
    "centre_x", "centre_y", "size", "width", "tilt", "gaze", "eye_colour", "brow_angle",
    "skin_tone", "hair_tone", "hair_length", "hair_volume", "fringe_phase", "hat_hue", "hat_crown",
    "shirt_hue", "shirt_value", "background_hue", "background_offset", "background_value",
    "background_angle", "light_direction", "light_strength", "lip_colour", "beard_tone",
    "frame_tone", "earring_tone", "grain",
)  # fmt: skip
SCENERY: tuple[str, ...] = tuple(
    name for name in NUISANCE if name.startswith(("background", "shirt", "light"))
)
UNREAD: tuple[str, ...] = (
    "grain", "fringe_phase", "hat_hue", "hat_crown", "frame_tone", "beard_tone",
    "earring_tone",
)  # fmt: skip

# The darkest skin stays well above the lightest beard, and the palest tan well below pale.
_SKIN_PALE = colours((255, 226, 208), (252, 232, 214), (250, 220, 196))
_SKIN_TAN = colours((212, 158, 114), (192, 134, 92), (166, 110, 74))
_HAIR_DARK = colours((34, 28, 34), (66, 42, 30), (84, 50, 32), (116, 52, 30))
_HAIR_BLOND = colours((222, 178, 78), (240, 204, 108), (232, 190, 84))
_BEARD = colours((40, 26, 20), (56, 36, 26), (74, 46, 30))
_LIPS = colours((196, 48, 64), (208, 62, 74), (182, 40, 52), (198, 54, 92))
_EYES = colours((70, 44, 28), (104, 70, 36), (62, 110, 66), (54, 112, 160), (84, 104, 124))
_FRAMES = colours((22, 22, 28), (30, 34, 64), (88, 22, 30))
# Saturated, so that they stand out from hair, skin and the muted backgrounds.
_EARRINGS = colours((255, 40, 120), (40, 90, 255), (0, 190, 200))
_HATS = colours(
    (192, 48, 54), (210, 98, 44), (92, 124, 60), (34, 134, 108), (36, 120, 166), (66, 82, 184),
    (122, 66, 168), (178, 54, 124),
)  # fmt: skip
_BROW = colours((54, 36, 28))[0]
_LASH = colours((34, 24, 24))[0]
_WHITE = colours((252, 252, 250))[0]
_THROAT = colours((74, 14, 24))[0]
_TONGUE = colours((226, 96, 104))[0]
_BLUSH = colours((240, 84, 84))[0]


class _Portrait(Picture):
    """One picture in the making.

    The face frame has its origin at the middle of the face; its unit is one pixel at mean size.
    """

    attributes = ATTRIBUTES
    nuisance = NUISANCE

    def __init__(self, attributes: Sequence[bool], nuisance: Sequence[float]) -> None:
        super().__init__(attributes, nuisance)
        v = self.v
        self.skin = shapes.palette(_SKIN_PALE if self.on["pale"] else _SKIN_TAN, v["skin_tone"])
        self.hair = shapes.palette(_HAIR_BLOND if self.on["blond"] else _HAIR_DARK, v["hair_tone"])
        self.lips = shapes.palette(_LIPS, v["lip_colour"])
        self.face_rx = 15.0 + 1.6 * v["width"]
        self.hair_rx = self.face_rx + 2.4 + 1.4 * v["hair_volume"]
        self.hair_ry = 20.0 + 1.2 * v["hair_volume"]
        self.long_hair = v["hair_length"] > 0.4
        self.centre = (32.0 + 4.0 * (v["centre_x"] - 0.5), 33.8 + 4.0 * (v["centre_y"] - 0.5))

    def paint(self) -> None:
        """All, from back to front."""
        v, (cx, cy) = self.v, self.centre
        self.background()
        tilt = math.radians(14.0 * (v["tilt"] - 0.5))
        self.canvas.set_frame(cx, cy, tilt, 1.0 + 0.16 * (v["size"] - 0.5))
        self.back_hair()
        self.canvas.set_frame(cx, cy, 0.0, 1.0)
        self.body()
        self.canvas.set_frame(cx, cy, tilt, 1.0 + 0.16 * (v["size"] - 0.5))
        self.head()
        self.eyes()
        if self.on["beard"]:
            self.beard()
        self.mouth()
        self.front_hair()
        if self.on["earrings"]:
            self.earrings()
        if self.on["eyeglasses"]:
            self.eyeglasses()
        if self.on["hat"]:
            self.hat()

    def face_distance(self, w: shapes.Window) -> FloatArray:
        """Distance to the face, an egg with its narrow end at the chin."""
        return shapes.ellipse(w.x * (1.0 + 0.007 * w.y), w.y, 0.0, 0.0, self.face_rx, 18.6)

    def background(self) -> None:
        """Two related muted colours in a gradient, with a glow behind the head."""
        v, canvas = self.v, self.canvas
        value = 0.62 + 0.24 * v["background_value"]
        offset = 0.24 * (v["background_offset"] - 0.5)
        first = shapes.hsv(v["background_hue"], 0.34 - 0.12 * v["background_value"], value)
        second = shapes.hsv(v["background_hue"] + offset, 0.24, value + 0.08)
        angle = math.tau * v["background_angle"]
        canvas.set_frame(32.0, 32.0, angle, 1.0)
        w = canvas.window(0.0, 0.0, 64.0, 64.0)
        t = np.clip(0.5 + w.x / 76.0, 0, 1)
        t = t * t * (3.0 - 2.0 * t)
        canvas.pixels[:] = first[:, None, None] + t * (second - first)[:, None, None]
        canvas.paint(w, shapes.ellipse(w.x, w.y, 0.0, 0.0, 22.0, 22.0), _WHITE, 0.20, 20.0)

    def back_hair(self) -> None:
        """Hair behind the head."""
        w = self.canvas.window(0.0, 3.0, 24.0, 28.0)
        d = shapes.ellipse(w.x, w.y, 0.0, -2.6, self.hair_rx, self.hair_ry)
        if self.long_hair:
            end = 8.0 + 24.0 * (self.v["hair_length"] - 0.4)
            half = (end + 8.0) / 2.0
            box = shapes.rounded_box(w.x, w.y, 0.0, end - half, self.hair_rx + 0.6, half, 7.0)
            d = np.minimum(d, box)
        else:
            d = np.maximum(d, w.y - 5.0)
        self.canvas.paint(w, d, self.shaded(self.hair * np.float32(0.74), w))

    def body(self) -> None:
        """Shirt, collar and neck; upright however the head is tilted."""
        v, canvas = self.v, self.canvas
        value = v["shirt_value"]
        shirt = shapes.hsv(v["shirt_hue"], 0.56 - 0.2 * value, 0.40 + 0.42 * value)
        w = canvas.window(0.0, 26.0, 34.0, 14.0)
        chest = shapes.ellipse(w.x, w.y, 0.0, 37.0, 28.0, 18.0)
        canvas.paint(w, chest, self.shaded(shirt, w))
        if self.on["striped_shirt"]:
            place = w.y * np.float32(1.0 / 5.0)
            stripe = (np.abs(place - np.floor(place) - np.float32(0.5)) - np.float32(0.25)) * 5.0
            canvas.paint(w, np.maximum(stripe, chest + 0.6), _WHITE)
        collar = shapes.ellipse(w.x, w.y, 0.0, 20.5, 9.6, 6.6)
        canvas.paint(w, collar, shirt * np.float32(0.72))
        w = canvas.window(0.0, 20.0, 10.0, 8.0)
        neck = shapes.rounded_box(w.x, w.y, 0.0, 10.0, 6.2, 15.0, 4.0)
        neck = np.minimum(neck, shapes.ellipse(w.x, w.y, 0.0, 20.5, 8.2, 5.2))
        canvas.paint(w, neck, self.skin * np.float32(0.90))
        # The head's shadow sets the chin off from the neck.
        shadow = np.maximum(neck, shapes.ellipse(w.x, w.y, 0.0, 13.0, 12.0, 9.4))
        canvas.paint(w, shadow, self.skin * np.float32(0.72), 0.8, 2.0)

    def head(self) -> None:
        """Ears, the face itself, nose and cheeks."""
        canvas, skin, rx = self.canvas, self.skin, self.face_rx
        for side in (-1.0, 1.0):
            w = canvas.window(side * (rx + 0.4), 1.8, 3.4, 5.0)
            ear = shapes.ellipse(w.x, w.y, side * (rx + 0.4), 1.8, 2.9, 4.4)
            canvas.paint(w, ear, skin * np.float32(0.93))
            canvas.paint(w, ear + 1.5, skin * np.float32(0.76), 0.8, 0.6)
        w = canvas.window(0.0, 0.0, rx + 2.0, 20.0)
        d = self.face_distance(w)
        # A darker rim rounds the flat oval.
        rim = np.clip(1.0 + d / 4.5, 0, 1) * np.float32(0.13)
        canvas.paint(w, d, self.shaded(skin, w) * (1.0 - rim))
        smiling = self.on["smiling"]
        for side in (-1.0, 1.0):
            if smiling:
                w = canvas.window(side * 10.6, 5.4, 6.0, 5.0)
                d = shapes.ellipse(w.x, w.y, side * 10.6, 5.4, 3.6, 2.8)
                canvas.paint(w, d, _BLUSH, 0.60, 1.6)
        w = canvas.window(0.0, 3.0, 4.0, 4.5)
        nose = shapes.ellipse(w.x, w.y, 0.0, 3.6, 2.3, 2.0)
        canvas.paint(w, nose, skin * np.float32(0.74), softness=0.6)

    def eyes(self) -> None:
        """Eyes, and brows that are arched in a smile and slant down outwards in a sad face."""
        v, canvas = self.v, self.canvas
        iris = shapes.palette(_EYES, v["eye_colour"])
        gaze = 2.4 * (v["gaze"] - 0.5)
        lift = 1.2 * (v["brow_angle"] - 0.5)
        for side in (-1.0, 1.0):
            cx = side * 6.8
            w = canvas.window(cx, -0.8, 6.4, 5.6)
            white = shapes.ellipse(w.x, w.y, cx, -0.8, 4.6, 3.7)
            canvas.paint(w, white - 0.7, _LASH)
            canvas.paint(w, white, _WHITE)
            ball = shapes.ellipse(w.x, w.y, cx + gaze, -0.8, 2.9, 3.1)
            canvas.paint(w, np.maximum(ball, white), iris)
            canvas.paint(w, np.maximum(ball + 1.3, white), _LASH)
            w = canvas.window(cx, -7.4, 6.4, 4.4)
            if self.on["smiling"]:
                brow = shapes.arc_stroke(w.x, w.y, cx, 4.2, -8.6 - lift, -6.8 + lift, 1.0)
            else:
                inner, outer = -8.4 - lift, -5.6 + lift
                brow = shapes.segment(w.x, w.y, side * 3.2, inner, side * 10.6, outer, 1.0)
            canvas.paint(w, brow, _BROW)

    def beard(self) -> None:
        """A full beard over jaw, chin and upper lip, below the cheeks."""
        w = self.canvas.window(0.0, 11.0, self.face_rx + 3.0, 12.5)
        jaw = self.face_distance(w) - (0.4 + 0.11 * np.clip(w.y, 0, 20))
        cheeks = shapes.ellipse(w.x, w.y, 0.0, -0.8, self.face_rx - 2.2, 8.4)
        d = np.maximum(np.maximum(jaw, -cheeks), 2.5 - w.y)
        beard = shapes.palette(_BEARD, self.v["beard_tone"])
        curl = shapes.ellipse(w.x, w.y, 0.0, 12.0, 11.0, 8.0)
        self.canvas.paint(w, d, beard, softness=0.3)
        self.canvas.paint(w, np.maximum(d, np.abs(curl) - 0.5), _WHITE, 0.10, 1.5)

    def mouth(self) -> None:
        """The mouth: corners up or down, open or closed, four clearly different outlines."""
        canvas = self.canvas
        smiling = self.on["smiling"]
        w = canvas.window(0.0, 12.0, 13.0, 8.0)
        if not self.on["mouth_open"]:
            middle, ends = (14.6, 8.2) if smiling else (9.6, 14.6)
            stroke = shapes.arc_stroke(w.x, w.y, 0.0, 8.6, middle, ends, 1.8)
            canvas.paint(w, stroke - 0.6, self.lips * np.float32(0.45))
            canvas.paint(w, stroke, self.lips)
            return
        if smiling:
            d = shapes.lens(w.x, w.y, 10.0, 7.2, 8.4, 17.6)
        else:
            # Bending a wide O downwards at the sides gives it sad corners.
            d = shapes.ellipse(w.x, w.y - w.x * w.x * np.float32(0.03), 0.0, 12.0, 6.6, 4.8)
        canvas.paint(w, d - 1.3, self.lips)
        canvas.paint(w, d, _THROAT)
        if smiling:
            canvas.paint(w, np.maximum(d, w.y - 11.6), _WHITE)
        else:
            tongue = shapes.ellipse(w.x, w.y, 0.0, 17.0, 5.0, 3.4)
            canvas.paint(w, np.maximum(tongue, d), _TONGUE)

    def front_hair(self) -> None:
        """Hair around the bare forehead, side locks, and the fringe."""
        canvas, rx = self.canvas, self.face_rx
        w = canvas.window(0.0, -10.0, 22.0, 16.0)
        cap = shapes.ellipse(w.x, w.y, 0.0, -2.6, self.hair_rx, self.hair_ry)
        opening = shapes.ellipse(w.x, w.y, 0.0, 3.4, rx - 0.8, 16.8)
        bottom = 4.0 if self.long_hair else -0.5
        d = np.maximum(np.maximum(cap, -opening), w.y - bottom)
        canvas.paint(w, d, self.shaded(self.hair, w))
        # A soft band of sheen follows the crown of the head.
        sheen = np.maximum(np.abs(cap + 3.2) - 0.6, w.y + 8.0)
        canvas.paint(w, np.maximum(sheen, d), _WHITE, 0.16, 1.8)
        if self.long_hair:
            end = 5.0 + 24.0 * (self.v["hair_length"] - 0.4)
            for side in (-1.0, 1.0):
                w = canvas.window(side * (rx + 1.2), end / 2.0, 5.0, end / 2.0 + 6.0)
                top, out = side * (rx + 0.9), side * (self.hair_rx - 0.8)
                lock = shapes.segment(w.x, w.y, top, -3.0, out, end, 2.2)
                canvas.paint(w, lock, self.shaded(self.hair * np.float32(0.94), w))
        if self.on["bangs"]:
            w = canvas.window(0.0, -12.0, rx + 1.0, 8.0)
            # Cusps of a triangle wave part the fringe into strands.
            wave = w.x * 0.13 + self.v["fringe_phase"]
            wave = np.abs(wave - np.floor(wave) - 0.5) * 2.0
            edge = -4.6 - 1.6 * wave + 0.008 * w.x * w.x
            d = np.maximum(self.face_distance(w) - 0.6, w.y - edge)
            strand = 1.0 - 0.22 * np.clip(wave * 3.0 - 2.0, 0, 1) + 0.012 * (w.y + 12.0)
            canvas.paint(w, d, self.shaded(self.hair, w) * strand)

    def eyeglasses(self) -> None:
        """Thick frames with faintly lit lenses."""
        canvas = self.canvas
        frame = shapes.palette(_FRAMES, self.v["frame_tone"])
        w = canvas.window(0.0, -0.6, self.face_rx + 1.0, 8.0)
        lens_shape = shapes.rounded_box(np.abs(w.x), w.y, 7.2, -0.6, 5.4, 5.0, 3.6)
        canvas.paint(w, lens_shape, colours((214, 236, 250))[0], 0.20)
        bridge = shapes.arc_stroke(w.x, w.y, 0.0, 2.4, -1.8, -1.0, 1.0)
        temple = shapes.rounded_box(np.abs(w.x), w.y, self.face_rx - 1.2, -1.4, 2.2, 1.1, 0.6)
        rims = np.abs(lens_shape - 0.7) - 1.2
        canvas.paint(w, np.minimum(rims, np.minimum(bridge, temple)), frame)

    def earrings(self) -> None:
        """A large drop below each ear, in front of the hair."""
        canvas, x = self.canvas, self.face_rx + 1.4
        colour = shapes.palette(_EARRINGS, self.v["earring_tone"])
        for side in (-1.0, 1.0):
            w = canvas.window(side * x, 9.6, 5.0, 6.0)
            drop = shapes.ellipse(w.x, w.y, side * x, 9.6, 3.2, 4.0)
            canvas.paint(w, drop - 0.8, _LASH)
            canvas.paint(w, drop, colour)

    def hat(self) -> None:
        """A brimmed hat over the top of the head, above the fringe."""
        v, canvas = self.v, self.canvas
        felt = shapes.palette(_HATS, v["hat_hue"])
        w = canvas.window(0.0, -20.0, 24.0, 11.0)
        round_top = shapes.ellipse(w.x, w.y, 0.0, -12.0, 17.4, 17.0)
        flat_top = shapes.rounded_box(w.x, w.y, 0.0, -17.0, 16.6, 11.4, 6.0)
        crown = round_top + np.float32(v["hat_crown"]) * (flat_top - round_top)
        crown = np.maximum(crown, w.y + 11.5)
        rim = np.clip(1.0 + crown / 5.0, 0, 1) * np.float32(0.16)
        canvas.paint(w, crown, self.shaded(felt, w) * (1.0 - rim))
        canvas.paint(w, np.maximum(crown, np.abs(w.y + 15.6) - 1.7), felt * np.float32(0.45))
        brim = shapes.arc_stroke(w.x, w.y, 0.0, 20.4, -12.6, -11.4, 1.9)
        canvas.paint(w, brim, self.shaded(felt * np.float32(0.88), w))


_COMMON: Phrases = {
    "smiling": (("smiling",), ("sad",)),
    "eyeglasses": (("with eyeglasses",), ("without eyeglasses",)),
    "beard": (("with a beard",), ("without a beard",)),
    "hat": (("with a hat",), ("without a hat",)),
    "blond": (("with blond hair",), ("with dark hair",)),
    "bangs": (("with bangs",), ("without bangs",)),
    "mouth_open": (("with an open mouth",), ("with a closed mouth",)),
    "pale": (("with pale skin",), ("with tan skin",)),
    "striped_shirt": (("with a striped shirt",), ("with a plain shirt",)),
    "earrings": (("with earrings",), ("without earrings",)),
}
_EXTRA: dict[str, Phrases] = {
    "portrait": {
        "smiling": (("with a smile",), ("without a smile",)),
        "eyeglasses": (("wearing eyeglasses",), ()),
        "beard": (("bearded",), ("shaven",)),
        "hat": (("wearing a hat",), ()),
        "blond": (("blond",), ()),
        "bangs": (("with a fringe",), ("without a fringe",)),
        "mouth_open": ((), ()),
        "pale": (("pale",), ("tan",)),
        "striped_shirt": (("with stripes",), ("without stripes",)),
        "earrings": (("wearing earrings",), ()),
    },
    "person": {
        "smiling": (("happy",), ("without a smile",)),
        "eyeglasses": (("with glasses",), ("without glasses",)),
        "beard": (("bearded",), ("with a bare chin",)),
        "hat": (("wearing a hat",), ("with a bare head",)),
        "blond": (("with yellow hair",), ("with brown hair",)),
        "bangs": (("with hair over forehead",), ("with a bare forehead",)),
        "mouth_open": (("with mouth open",), ("with mouth closed",)),
        "pale": (("pale",), ("tanned",)),
        "striped_shirt": (("wearing stripes",), ("wearing a plain shirt",)),
        "earrings": (("with jewels",), ("with bare ears",)),
    },
}
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "portrait": (("a", "face"), ("a portrait of a", "face"), ("the", "face")),
    "person": (("a", "face"), ("a", "person"), ("a picture of a", "person")),
}

WORDING = Wording(common=_COMMON, extra=_EXTRA, nouns=_NOUNS)
DRAWING = Drawing(
    name="rendered_faces",
    subject="portraits",
    attributes=ATTRIBUTES,
    nuisance=NUISANCE,
    scenery=SCENERY,
    unread=UNREAD,
    concepts=CONCEPTS,
    picture=_Portrait,
    tuning_concepts=TUNING_CONCEPTS,
)

DATASETS.register("rendered_faces", partial(rendered_dataset, DRAWING))
