"""Short lines about many names or errors."""

from pathlib import Path


def some(names: list[str], limit: int = 5) -> str:
    """Returns the first names and the number of all others, as in ``a, b and 7 more``."""
    text = ", ".join(names[:limit])
    if len(names) > limit:
        text += f" and {len(names) - limit} more"
    return text


def first_lines(lines: list[str], limit: int = 20) -> list[str]:
    """Shortens errors: files with the same fault are in one line, and there are at most ``limit`` lines.

    >>> first_lines([f"masks/{name}.png: cannot be read" for name in "abcdefg"])
    ['masks: 7 files (a.png, b.png, c.png, d.png, e.png and 2 more): cannot be read']
    """
    files: dict[str, list[Path]] = {}
    for line in dict.fromkeys(lines):
        file, _, fault = line.partition(": ")
        files.setdefault(fault, []).append(Path(file))
    shown = []
    for fault, paths in files.items():
        if len(paths) > 5 and len({path.parent for path in paths}) == 1:
            shown.append(f"{paths[0].parent}: {len(paths)} files ({some([path.name for path in paths])}): {fault}")
        else:
            shown += [f"{path}: {fault}" if fault else str(path) for path in paths]
    if len(shown) > limit:
        return [*shown[:limit], f"and {len(shown) - limit:,} more lines"]
    return shown
