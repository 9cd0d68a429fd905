"""Escapes text from files and users (labels, names, errors) that would steer a terminal, a page or a spreadsheet."""

import unicodedata

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control and format characters, surrogates, and separators of lines and paragraphs."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet takes for a formula (OWASP, "CSV Injection")."""


def harmless(text: str, keep: str = "") -> str:
    """Escapes every invisible character, as in ``\\x1b`` and ``\\u202e``.

    keep: characters that are not escaped, such as the line feeds of a text of several lines.
    """
    if text.isprintable():
        return text
    escapes = {}
    for character in set(text).difference(keep):
        if unicodedata.category(character) in INVISIBLE:
            escapes[ord(character)] = character.encode("unicode_escape").decode()
    return text.translate(escapes)


def csv_cell(value: object) -> object:
    """Makes a cell of a CSV file that no spreadsheet takes for a formula: an apostrophe is put in front of it.

    Numbers stay numbers, also where they are texts, such as the label ``-1``.
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
