"""Text from a stranger, shown so that it does nothing."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    r"""Text in which whatever is not printable, but for the characters to keep, is an escape.

    Those are control characters, which steer a terminal, and marks of the direction of writing,
    which show a line as another one. An escape is that of JSON, such as `\u001b` or `\u202e`.
    """
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


MOST_SAID = 4_000
"""Characters of a line for a person, as long as the longest path."""


def shortened(text: str) -> str:
    """The text, without its middle where nobody would read it: names in files may be endless."""
    return text if len(text) <= MOST_SAID else f"{text[: MOST_SAID // 2]} … {text[-500:]}"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
