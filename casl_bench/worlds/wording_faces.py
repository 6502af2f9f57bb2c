"""The words in which drawn portraits are spoken of, in two manners."""

from __future__ import annotations

from casl_bench.worlds.captions import Phrases, Wording

_COMMON: Phrases = {
    "smiling": (("smiling",), ("sad",)),
    "eyeglasses": (("with eyeglasses",), ("without eyeglasses",)),
    "beard": (("with a beard",), ("without a beard",)),
    "hat": (("with a hat",), ("without a hat",)),
    "blond": (("with blond hair",), ("with dark hair",)),
    "bangs": (("with bangs",), ("without bangs",)),
    "mouth_open": (("with an open mouth",), ("with a closed mouth",)),
    "pale": (("with pale skin",), ("with tan skin",)),
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
    },
}
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "portrait": (("a", "face"), ("a portrait of a", "face"), ("the", "face")),
    "person": (("a", "face"), ("a", "person"), ("a picture of a", "person")),
}

WORDING = Wording(common=_COMMON, extra=_EXTRA, nouns=_NOUNS)
