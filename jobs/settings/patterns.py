"""Regular expressions of the configs' texts, which a whole value matches.

Python, Airflow's form (JSON Schema) and browsers (the flag v) read them alike: "/" and a "-" in
brackets are escaped, and nothing is used that one of them lacks.
"""

from __future__ import annotations

# Where the next of several sources, which "+" joins, begins; and a character before that.
NEXT_SOURCE = r"\+[a-z0-9]+:\/\/"
_CHARACTER = rf"(?:(?!{NEXT_SOURCE})[\s\S])"


def _s3(character: str = r"[\s\S]", end: str = "$") -> str:
    """A pattern of "s3://" before a sound URI; `character` and `end` say how far the URI goes.

    S3 servers disagree about keys with an empty, "." or ".." folder, and nobody sees a control
    character or a space at the end. The URI of a flag has none; listed keys of a bucket may.
    """
    unsound = rf"\/\/|\/\.\.?(?:\/|{end})|\s{end}|[\x00-\x1f\x7f-\x9f]"
    return rf"s3:\/(?!{character}*(?:{unsound}))\/"


def several_of(names: tuple[str, ...]) -> str:
    """A pattern of some of the names, joined by commas, or nothing."""
    name = "|".join(names)
    return f"((?:{name})(,(?:{name}))*)?"


S3_URI = rf"{_s3()}[^\/]+(\/.*)?"
MANIFEST_URI = rf"{_s3()}[^\/]+\/(.*\/)?manifest\.json"
_CSV = r".*[^\/]\.[cC][sS][vV]"
S3_CSV = rf"{_s3()}[^\/]+\/{_CSV}"
S3_OR_LOCAL_CSV = rf"(?:{S3_CSV}|file:\/\/\/{_CSV})"

_KAGGLE = r"kaggle:\/\/[A-Za-z0-9_\-]+\/[A-Za-z0-9_\-]+(@[1-9][0-9]*)?"
_WEB = rf"https?:\/\/(?:(?!{NEXT_SOURCE})[^\/\s?#])+\/{_CHARACTER}+"
_FILE = rf"file:\/\/\/{_CHARACTER}+"
_S3 = rf"{_s3(_CHARACTER, rf'(?:{NEXT_SOURCE}|$)')}[^\/]{_CHARACTER}+"
# Films from 1 to 100000.
_FILMS, _SEED = "films=0*(?:[1-9][0-9]{0,4}|100000)", "seed=[0-9]{1,18}"
_QUERY = rf"(?:{_FILMS}(&{_SEED})?|{_SEED}(&{_FILMS})?)"
_PHANTOMS = rf"synthetic:\/\/phantoms(\?{_QUERY}?)?"
SOURCE_URI = rf"(?:{_KAGGLE}|{_WEB}|{_FILE}|{_S3}|{_PHANTOMS})"
SOURCES_URI = rf"{SOURCE_URI}(\+{SOURCE_URI})*"

# Gray values of 16 bits, 0 to 65535, and colors, joined by commas, or nothing.
_GRAY = "[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_VALUE = f"(?:{_GRAY}|#[0-9a-fA-F]{{6}})"
MASK_VALUES = f"({_VALUE}(,{_VALUE})*)?"
MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}"
RUN_ID = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}"
SHARD = r"[1-9]\d*\/[1-9]\d*"
ONE_LINE = r"[^\x00-\x1f\x7f]*"
