"""Evaluates CQL2 filters in JSON on STAC items, with null as SQL has it: what is unknown is not found."""

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from shapely.geometry import shape


class FilterError(ValueError):
    """A filter that cannot be read."""


def matches(expression: Any, item: dict[str, Any]) -> bool:
    """Whether an item fits a filter.

    Raises:
        FilterError: the filter is malformed or has an unknown operator.
    """
    return _evaluate(expression, item) is True


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ITEM_FIELDS = ("id", "collection", "geometry")


def _evaluate(expression: Any, item: dict[str, Any]) -> bool | None:
    """Return True, False, or None where that cannot be known."""
    if isinstance(expression, bool):
        return expression
    if not isinstance(expression, dict) or not isinstance(expression.get("args"), list):
        raise FilterError(f"expected an operator with args, got {expression!r}")
    name, args = str(expression.get("op")), expression["args"]
    try:
        if name in ("and", "or"):
            return _combine(name, [_evaluate(part, item) for part in args])
        if name == "not":
            inner = _evaluate(args[0], item)
            return None if inner is None else not inner
        if name == "isNull":
            return _value(args[0], item) is None
        if name == "s_intersects":
            left, right = (_value(part, item) for part in args)
            return None if left is None or right is None else bool(shape(left).intersects(shape(right)))
        return _predicate(name, args, item)
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FilterError):
            raise
        raise FilterError(f"cannot evaluate {name} of {args!r}: {error}") from error


def _combine(name: str, parts: list[bool | None]) -> bool | None:
    decisive = name == "or"
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def _predicate(name: str, args: list[Any], item: dict[str, Any]) -> bool | None:
    value = _value(args[0], item)
    if name == "in":
        options = [_value(option, item) for option in args[1]]
        return None if value is None else value in options
    others = [_value(other, item) for other in args[1:]]
    if name not in _COMPARE and name not in ("between", "like"):
        raise FilterError(f"unknown operator {name!r}")
    if value is None or None in others:
        return None
    if name == "between":
        return bool(others[0] <= value <= others[1])
    if name == "like":
        return re.fullmatch(_pattern(others[0]), value, re.DOTALL) is not None
    return bool(_COMPARE[name](value, others[0]))


def _value(operand: Any, item: dict[str, Any]) -> Any:
    if not isinstance(operand, dict):
        return operand
    if "property" in operand:
        name = operand["property"].removeprefix("properties.")
        value = item.get(name) if name in _ITEM_FIELDS else item["properties"].get(name)
        return _time(value) if name == "datetime" and value is not None else value
    for kind in ("timestamp", "date"):
        if kind in operand:
            return _time(operand[kind])
    if "coordinates" in operand:
        return operand
    raise FilterError(f"unknown operand {operand!r}")


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time.replace(tzinfo=time.tzinfo or UTC)


def _pattern(like: str) -> str:
    wildcards = {"%": ".*", "_": "."}
    tokens = re.findall(r"\\.|.", like, re.DOTALL)
    return "".join(wildcards.get(token, re.escape(token[-1])) for token in tokens)
