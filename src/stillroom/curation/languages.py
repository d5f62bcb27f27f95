"""Which language a row is in, by `py3langid`, which is part of the extra `distill` and loads NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from stillroom.curation.texts import WIDE_LETTER, Said
from stillroom.errors import InvalidRequest, MissingExtra

UNKNOWN = "und"
"""ISO's code for a language that cannot be told."""
NO_LANGUAGE = "zxx"
"""And for what is none, such as JSON."""
LETTERS_TO_TELL = 20
WEIGHT_OF_WIDE = 3  # one Chinese or Japanese letter tells as much as three of ours
LOOKED_AT = 2000  # letters
SURE = 0.5

Detect = Callable[[Said], str]


def detector(wanted: Sequence[str] = ()) -> Detect:
    """Raises MissingExtra without the extra, and InvalidRequest for a wanted language that nobody can detect."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise MissingExtra(
            "To tell languages apart needs `pip install 'stillroom[distill]'`; without it, leave 'languages' away.",
            param="curation.languages",
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = set(identifier.labels)
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidRequest(
            f"'curation.languages' has {unknown[0]!r}, which is no known language code; give codes such as "
            '"en", "ja" or "de".',
            param="curation.languages",
        )

    def detect(said: Said) -> str:
        text = f"{said.prompt[-LOOKED_AT:]}\n{said.answer[:LOOKED_AT]}"
        letters = sum(map(str.isalpha, text)) + (WEIGHT_OF_WIDE - 1) * len(WIDE_LETTER.findall(text))
        if letters < LETTERS_TO_TELL:
            return UNKNOWN
        found, sure = identifier.classify(text)
        return UNKNOWN if found == NO_LANGUAGE or sure < SURE else str(found)

    return detect


def is_there() -> bool:
    """Whether languages can be told here."""
    return find_spec("py3langid") is not None
