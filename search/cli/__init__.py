"""The command line: parses, calls, prints. No logic of its own.

Exit codes: 0 done, 1 the run failed, 2 wrong input, 130 interrupted (the same command goes on).
"""

from search.cli.app import main

__all__ = ["main"]
