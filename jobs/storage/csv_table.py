"""The CSVs that people open in a spreadsheet, which would run some texts as formulas.

A row is one line: control characters are escaped. A text that begins like a formula gets an
apostrophe in front (OWASP, "CSV Injection"); numbers are written as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from jobs.runtime.visible_text import visible

# After spaces, quotes and apostrophes: what begins a formula in Excel and LibreOffice, in full
# width too.
FORMULA = re.compile(r"""[ \u3000"']*[=+\-@\uff1d\uff0b\uff0d\uff20]""")


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A CSV file; rows may omit columns, unknown keys raise ValueError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return escape_formula(visible(value)) if isinstance(value, str) else value


def escape_formula(text: str) -> str:
    """The text, with an apostrophe in front if it begins like a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
