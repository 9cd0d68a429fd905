"""The console of the commands. Texts from files cannot steer the terminal: their control characters are escaped."""

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
"""Control characters that a text of several lines may hold."""

LOG_WIDTH = 160
"""Characters in a line of a table that is not shown in a terminal."""


class Console(rich.console.Console):
    """A console that escapes control characters in texts; its own colours still work."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Escapes strings before their width is measured."""
        return super().render_str(harmless(text, KEPT), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escapes everything else when it is drawn."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text, KEPT))


def console_of_command(quiet: bool = False) -> Console:
    """Makes the console on which a command writes to standard output."""
    width = None if sys.stdout.isatty() else LOG_WIDTH
    return Console(file=sys.stdout, quiet=quiet, width=width, soft_wrap=True, highlight=False)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors escape control characters of the arguments that they repeat."""

    def error(self, message: str) -> NoReturn:
        super().error(harmless(message, KEPT))


def complain(*lines: object) -> None:
    """Prints lines on standard error."""
    print(*(harmless(str(line), KEPT) for line in lines), sep="\n", file=sys.stderr)
