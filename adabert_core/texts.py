"""What counts as a text, for training and for answering alike."""

import re

_INVISIBLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*")  # no width, no glyph
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_empty(text: str) -> bool:
    """Whether there is nothing to be seen in a text: spaces, control characters and those of no width alone."""
    return _INVISIBLE.fullmatch(text) is not None


def is_broken(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no encoding can write."""
    return _SURROGATE.search(text) is not None
