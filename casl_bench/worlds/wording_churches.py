"""The words in which drawn churches are spoken of, in two manners."""

from __future__ import annotations

from casl_bench.worlds.captions import Phrases, Wording

_COMMON: Phrases = {
    "brick": (("with brick walls",), ("with plaster walls",)),
    "spire": (("with a gothic spire",), ("with a flat tower",)),
    "dome": (("with a dome",), ("without a dome",)),
    "snow": (("with snow",), ("without snow",)),
    "night": (("at night",), ("by day",)),
    "tree": (("with a tree",), ("without a tree",)),
}
_EXTRA: dict[str, Phrases] = {
    "portrait": {
        "brick": (("with red walls",), ("with pale walls",)),
        "spire": (("gothic",), ("without a spire",)),
        "dome": (("domed",), ()),
        "snow": (("in the snow",), ("on grass",)),
        "night": (("under a dark sky",), ("under a blue sky",)),
        "tree": (("beside a tree",), ()),
    },
    "building": {
        "brick": (("of red brick",), ("of white plaster",)),
        "spire": (("with a pointed tower",), ("with battlements",)),
        "dome": (("with a round dome",), ("with a plain roof",)),
        "snow": (("snowy",), ("in summer",)),
        "night": (("with lit windows", "under a moon"), ("in the daytime",)),
        "tree": (("with a tree in front",), ("with nothing in front",)),
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
    openers=("with", "without", "at", "by", "beside", "in", "of", "on", "under"),
)
