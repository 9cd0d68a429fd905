"""Lines about many things at once, short enough to read."""

from pathlib import Path


def some(names: list[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def first_lines(lines: list[str], limit: int = 20) -> list[str]:
    """Errors as a user sees them: files with the same fault in one line, and at most ``limit`` lines.

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
    more = len(shown) - limit
    return shown[:limit] + ([f"and {more:,} more lines"] if more > 0 else [])
