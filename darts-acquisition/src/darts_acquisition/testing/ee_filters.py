"""Earth Engine's filters: functions of an element, True where it stays."""

from collections.abc import Callable
from typing import Any

from darts_acquisition.testing.ee_values import (
    Date,
    DateRange,
    EarthEngineError,
    Element,
    as_geometry,
    intersects,
    milliseconds,
)  # fmt: skip

Filter = Callable[[Element], bool]

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda left, right: left == right,
    "notEquals": lambda left, right: left != right,
    "lessThan": lambda left, right: left < right,
    "lessThanOrEquals": lambda left, right: left <= right,
    "greaterThan": lambda left, right: left > right,
    "greaterThanOrEquals": lambda left, right: left >= right,
    "stringContains": lambda left, right: right in left,
    "stringStartsWith": lambda left, right: left.startswith(right),
    "stringEndsWith": lambda left, right: left.endswith(right),
    "inList": lambda left, right: left in right,
    "listContains": lambda left, right: right in left,
    "dateRangeContains": lambda left, right: _date_range(left).start <= milliseconds(right) < _date_range(left).end,
    "intersects": lambda left, right: intersects(as_geometry(left), as_geometry(right)),
    "disjoint": lambda left, right: not intersects(as_geometry(left), as_geometry(right)),
}
_ALIASES = {
    "eq": "equals", "neq": "notEquals", "lt": "lessThan", "lte": "lessThanOrEquals",
    "gt": "greaterThan", "gte": "greaterThanOrEquals",
}  # fmt: skip
_GEOMETRY_FIELDS = (".all", ".geo")
_CALENDAR: dict[str, Callable[[Any], int]] = {
    "year": lambda time: time.year,
    "month": lambda time: time.month,
    "day_of_month": lambda time: time.day,
    "day_of_year": lambda time: time.timetuple().tm_yday,
    "hour": lambda time: time.hour,
}


def make_filter(name: str, arguments: dict[str, Any]) -> Filter | None:
    """Return the filter `Filter.name` with its arguments; None: there is none of that name.

    A comparison with a property that an element lacks is False, so its `not` is True: as Earth Engine has it.
    """
    if name in ("and", "or"):
        parts: list[Filter] = arguments["filters"]
        combine = all if name == "and" else any
        return lambda element: combine(part(element) for part in parts)
    if name == "not":
        part: Filter = arguments["filter"]
        return lambda element: not part(element)
    if name == "notNull":
        return lambda element: all(element.get(key) is not None for key in arguments["properties"])
    if name in ("always", "never"):
        return lambda _element: name == "always"
    if name == "rangeContains":
        return _range(arguments)
    if name == "calendarRange":
        return _calendar_range(arguments)
    compare = _COMPARISONS.get(_ALIASES.get(name, name))
    return None if compare is None else _comparison(compare, arguments)


def _comparison(compare: Callable[[Any, Any], bool], arguments: dict[str, Any]) -> Filter:
    def side(element: Element, which: str) -> Any:
        key = arguments.get(f"{which}Field")
        if key is None:
            return arguments.get(f"{which}Value")
        return element.geometry() if key in _GEOMETRY_FIELDS else element.get(key)

    def stays(element: Element) -> bool:
        left, right = side(element, "left"), side(element, "right")
        if left is None or right is None:
            return False
        try:
            return compare(left, right)
        except (TypeError, AttributeError):
            return False

    return stays


def _range(arguments: dict[str, Any]) -> Filter:
    def stays(element: Element) -> bool:
        value = element.get(arguments["field"])
        return value is not None and arguments["minValue"] <= value <= arguments["maxValue"]

    return stays


def _calendar_range(arguments: dict[str, Any]) -> Filter:
    unit = arguments.get("field") or "day_of_year"
    if unit not in _CALENDAR:
        raise EarthEngineError(f"Filter.calendarRange: the test server does not know the field '{unit}'.")
    start = int(arguments["start"])
    end = start if arguments.get("end") is None else int(arguments["end"])

    def stays(element: Element) -> bool:
        time = element.get("system:time_start")
        if time is None:
            return False
        value = _CALENDAR[unit](Date(milliseconds(time)).utc)
        # A range that ends before it starts goes over the turn of the year.
        return start <= value <= end if start <= end else value >= start or value <= end

    return stays


def _date_range(value: Any) -> DateRange:
    if not isinstance(value, DateRange):
        raise EarthEngineError("Filter.dateRangeContains: a DateRange is expected.")
    return value
