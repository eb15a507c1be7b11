"""Pins the siblings of this package in its wheel: all are released together, and work together at one version only."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SiblingPins(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `darts-...==<own version>` to a wheel, not to an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the pins, unless the build is an editable one."""
        if version == "standard":
            own = self.metadata.version
            siblings = [name for name in self.metadata.core.dependencies if name.startswith("darts-")]
            build_data["dependencies"] += [f"{name}=={own}" for name in siblings]
