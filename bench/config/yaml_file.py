"""Reads YAML with plain values only, in bounded time and memory, and never runs code from it."""

import re
import unicodedata
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from bench.system.files import read_regular

LARGEST_BYTES = 256 * 1024
MOST_VALUES = 20_000
"""Maximum number of values after each alias is replaced by the values that it stands for."""
DEEPEST = 40
LONGEST_TEXT = 2000
LONGEST_KEY = 200
LONGEST_NUMBER = 30
TAG = "tag:yaml.org,2002:"
PLAIN = {f"{TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}
NUMBERS = {f"{TAG}int", f"{TAG}float"}
CORE = {
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
"""Types of texts without quotes in YAML 1.2 (its core schema). Any other text is a string."""
WORDS = {"null": "nothing", "bool": "a truth value", "int": "a whole number", "float": "a number", "str": "a text"}


class BadYaml(ValueError):
    """A sweep file may not hold this; the message is one line."""


class _Implied(str):
    """A type that the file does not state."""


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with ``2e-4`` a number as in YAML 1.2, and a repeated key an error."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        return _Implied(super().resolve(kind, value, implicit))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and not key_node.tag.endswith(":merge"):  # <<: *anchor
                key = self.construct_object(key_node)
                if key in seen:
                    mark = key_node.start_mark
                    raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands here twice", mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path: Path) -> dict[str, Any]:
    """Reads the mapping of a sweep file. Raises ``BadYaml`` with the path of the file."""
    try:
        content = read_regular(path, LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise BadYaml(f"{path}: is no sweep file, it has more than {LARGEST_BYTES // 1024} KiB")
        text = content.decode("utf-8")
    except FileNotFoundError:
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f". Did you mean {path.parent / near[0]}?" if near else ""
        raise BadYaml(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadYaml(f"{path}: cannot be read ({error})") from None
    try:
        raw = parse(text)
    except BadYaml as error:
        raise BadYaml(f"{path}: is no valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise BadYaml(f"{path}: a sweep file is a mapping with name, question and profiles")
    return raw


def parse(text: str) -> Any:
    """Parses numbers, texts, booleans and nulls in mappings and lists of bounded size. Raises ``BadYaml``."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, [])
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadYaml(_at(problem, mark)) from None
    except RecursionError:
        raise BadYaml(f"nested more than {DEEPEST} levels deep") from None
    except BadYaml:
        raise
    except (ValueError, TypeError, LookupError) as error:  # PyYAML fails, for example at a list as a key
        raise BadYaml(str(error).splitlines()[0]) from None


def _measure(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """Returns the number of values below a node, with aliases replaced. Raises ``BadYaml`` for other types."""
    if id(node) in above:
        raise BadYaml(_at("an alias stands within what it names", node.start_mark))
    if len(above) > DEEPEST:
        raise BadYaml(_at(f"nested more than {DEEPEST} levels deep", node.start_mark))
    if id(node) in known:
        return known[id(node)]
    if node.tag not in PLAIN:
        name = node.tag.removeprefix("tag:yaml.org,2002:")
        raise BadYaml(_at(f"{_short(name)} is no kind of value here. Put a text in quotes", node.start_mark))
    below: list[yaml.Node] = []
    if isinstance(node, yaml.ScalarNode):
        _check_text(node.value, node, LONGEST_NUMBER if node.tag in NUMBERS else LONGEST_TEXT)
        _check_meaning(node)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                _check_text(key.value, key, LONGEST_KEY)
            below += (key, value)
    else:
        below = node.value
    count = 1 + sum(_measure(each, known, [*above, id(node)]) for each in below)
    if count > MOST_VALUES:
        raise BadYaml(_at(f"more than {MOST_VALUES:,} values, aliases written out", node.start_mark))
    known[id(node)] = count
    return count


def _check_text(text: str, node: yaml.Node, longest: int) -> None:
    if len(text) > longest:
        raise BadYaml(_at(f"{_short(text)} has {len(text):,} characters. At most {longest}", node.start_mark))
    for character in text:
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs"):
            raise BadYaml(_at(f"holds the character U+{ord(character):04X}, which is no text", node.start_mark))


def _check_meaning(node: yaml.ScalarNode) -> None:
    """Refuses texts that YAML 1.1 (PyYAML) and YAML 1.2 read differently, and types that do not fit. Raises ``BadYaml``."""
    text, tag = node.value, node.tag.removeprefix(TAG)
    in_core = next((name for name, pattern in CORE.items() if re.fullmatch(pattern, text)), "str")
    of_octal = in_core == tag == "int" and re.fullmatch(r"[-+]?0[0-7]+", text) and int(text, 8) != int(text)
    if not isinstance(node.tag, _Implied):
        if tag in CORE and (of_octal or in_core not in ((tag, "int") if tag == "float" else (tag,))):
            raise BadYaml(_at(f"{_short(text)} is not {WORDS[tag]}, as its tag says", node.start_mark))
        return
    if node.style is not None or tag not in WORDS or in_core == tag and not of_octal:  # a text in quotes is a string
        return
    readings = [WORDS[tag], WORDS[in_core]] if not of_octal else [str(int(text, 8)), str(int(text))]
    problem = f"{_short(text)} is {readings[0]} in YAML 1.1 and {readings[1]} in YAML 1.2"
    remedy = "Write true or false" if tag == "bool" else "Write it as a decimal number"
    raise BadYaml(_at(f"{problem}. {remedy}, or a text in quotes", node.start_mark))


def _at(problem: str, mark: yaml.Mark | None) -> str:
    return problem + (f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
