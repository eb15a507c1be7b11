"""Thawing permafrost from space: pipelines, commands and the demo."""

from importlib.metadata import version as _version

__version__ = _version("darts-permafrost")

__all__ = ["__version__"]
