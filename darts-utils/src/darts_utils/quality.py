"""Levels of `quality_data_mask` as limits: pixels below one of them are invalid."""

from darts_utils.errors import ConfigError

QUALITY_LEVELS = {"none": 0, "low_quality": 1, "high_quality": 2}
"""The names of the levels."""


def quality_number(level: int | str) -> int:
    """Return a level, given by its number or name, as its number.

    Raises:
        ConfigError: there is no such level.
    """
    number = QUALITY_LEVELS.get(level) if isinstance(level, str) else level
    if number is None or isinstance(number, bool) or number not in QUALITY_LEVELS.values():
        raise ConfigError(f"quality_level is 0, 1, 2 or one of {', '.join(QUALITY_LEVELS)}; got {level!r}")
    return int(number)
