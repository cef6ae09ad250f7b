"""
The command-line program ``exponea-async``.
"""

from exponea_async.cli.app import main

__all__ = ["main"]
