"""How commands speak to people: what others wrote is made harmless."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bench.system.sanitize import harmless

KEPT = "\n\t"
"""What a text of several lines may hold."""


LOG_WIDTH = 160
"""Characters in a line of a table that is not shown in a terminal."""


class Console(rich.console.Console):
    """A console on which texts can neither move the cursor nor turn the direction of writing; its own colours can."""

    def render_str(self, text: str, **look: Any) -> Text:
        """Strings are harmless before their width is measured."""
        return super().render_str(harmless(text, KEPT), **look)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever else is printed is harmless when it is drawn."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text, KEPT))


def console_of_command(quiet: bool = False) -> Console:
    """Makes the console on which a command writes to standard output."""
    width = None if sys.stdout.isatty() else LOG_WIDTH
    return Console(file=sys.stdout, quiet=quiet, width=width, soft_wrap=True, highlight=False)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors repeat what was typed without doing what it says."""

    def error(self, message: str) -> NoReturn:
        super().error(harmless(message, KEPT))


def complain(*lines: object) -> None:
    """Prints lines on standard error."""
    print(*(harmless(str(line), KEPT) for line in lines), sep="\n", file=sys.stderr)
