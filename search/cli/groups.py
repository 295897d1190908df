"""Command groups that take a first word of their own: `measure PRESET` beside `measure import …`. Loads no torch."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "network"
"""The command that is meant where none is named."""


class DefaultGroup(TyperGroup):
    """A group in which the command `DEFAULT` is meant where the first word is none of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command first, where the first word is neither a command nor a call for help."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
