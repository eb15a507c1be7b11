"""Thawing permafrost from space: pipelines, commands and the demo."""
