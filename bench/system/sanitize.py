"""Text that others wrote (labels, names, errors, file names) as outputs may show it: it steers and hides nothing."""

import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, marks of direction and of no width, half characters, and line ends."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet calculates (OWASP, "CSV Injection")."""


def harmless(text: str, keep: str = "") -> str:
    """The text with every character that has no look of its own written out, as in ``\\x1b`` and ``\\u202e``.

    keep: characters that are left as they are, such as the line feeds of a text of several lines.
    """
    if text.isprintable():
        return text
    wrong = {c for c in set(text).difference(keep) if unicodedata.category(c) in UNSEEN}
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in wrong}) if wrong else text


def csv_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet calculates: what looks like a formula gets an apostrophe in front.

    Numbers stay numbers, also those that are texts, such as the label ``-1``.
    """
    if not isinstance(value, str):
        return value
    text = harmless(value, keep="\n")
    return f"'{text}" if value.startswith(FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
