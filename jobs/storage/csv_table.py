"""The CSVs that people open in a spreadsheet, which would run some texts as formulas.

A text that begins like a formula gets an apostrophe in front (OWASP, "CSV Injection"); numbers are
written as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

# After spaces, quotes and apostrophes: what begins a formula in Excel and LibreOffice, in full
# width too; tab, carriage return and line feed, after which another cell may begin.
FORMULA = re.compile(r"""[ \u3000"']*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]""")


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A CSV file; rows may omit columns, unknown keys raise ValueError.

    Texts that a spreadsheet would run as formulas have an apostrophe in front.
    """
    text = _Lines()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: escape_formula(cell) for name, cell in row.items()})
    return text.getvalue().encode()


class _Lines(io.StringIO):
    """Takes a CSV's rows, which end in CR and LF, and ends them in LF.

    The writer quotes a cell only for characters of its own line end: with LF alone a CR in a name
    would begin another row.
    """

    def write(self, line: str, /) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def escape_formula(cell: object) -> object:
    """The cell, with an apostrophe in front if it is a text that begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
