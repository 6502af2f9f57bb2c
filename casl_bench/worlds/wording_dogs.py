"""The words in which drawn dogs are spoken of, in two manners."""

from __future__ import annotations

from casl_bench.worlds.captions import Phrases, Wording

_COMMON: Phrases = {
    "tongue": (("with its tongue out",), ("with a closed mouth",)),
    "ears_up": (("with pointed ears",), ("with floppy ears",)),
    "light_fur": (("with golden fur",), ("with dark fur",)),
    "spots": (("with spots",), ("without spots",)),
    "collar": (("with a collar",), ("without a collar",)),
    "eyes_closed": (("with closed eyes",), ("with open eyes",)),
}
_EXTRA: dict[str, Phrases] = {
    "portrait": {
        "tongue": (("panting",), ("without its tongue out",)),
        "ears_up": (("with its ears up",), ("with its ears down",)),
        "light_fur": (("golden",), ("dark",)),
        "spots": (("spotted",), ()),
        "collar": (("wearing a collar",), ()),
        "eyes_closed": (("sleepy",), ("awake",)),
    },
    "pet": {
        "tongue": (("with an open mouth and tongue",), ("with mouth shut",)),
        "ears_up": (("with upright ears",), ("with hanging ears",)),
        "light_fur": (("cream",), ("black",)),
        "spots": (("with patches",), ("plain",)),
        "collar": (("wearing a collar",), ("with a bare neck",)),
        "eyes_closed": (("sleeping",), ("with eyes open",)),
    },
}
_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "portrait": (("a", "dog"), ("a portrait of a", "dog"), ("the", "dog")),
    "pet": (("a", "dog"), ("a", "pet"), ("a picture of a", "dog")),
}

WORDING = Wording(common=_COMMON, extra=_EXTRA, nouns=_NOUNS)
