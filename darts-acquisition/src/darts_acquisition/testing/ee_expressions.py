"""Evaluates Earth Engine's expression graphs, as far as searches and pixels need."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from darts_acquisition.testing.ee_filters import make_filter
from darts_acquisition.testing.ee_images import image_function, mosaic
from darts_acquisition.testing.ee_values import (
    Collection,
    Date,
    DateRange,
    EarthEngineError,
    Element,
    Reducer,
    as_geometry,
    milliseconds,
)  # fmt: skip

Assets = Mapping[str, Element]


def evaluate(expression: dict[str, Any], assets: Assets) -> Any:
    """Return the value of an expression.

    Raises:
        EarthEngineError: an asset or a function is unknown, or does not fit its arguments.
    """
    try:
        return _Evaluation(expression["values"], assets).node({"valueReference": expression["result"]}, {})
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise EarthEngineError(f"the test server cannot evaluate this expression: {error!r}") from error


class _Evaluation:
    def __init__(self, values: Mapping[str, Any], assets: Assets) -> None:
        self._values = values
        self._assets = assets

    def node(self, node: dict[str, Any], scope: Mapping[str, Any]) -> Any:
        """Return the value of a node; `scope` holds the arguments of the functions around it."""
        ((kind, content),) = node.items()
        if kind == "constantValue":
            return content
        if kind == "integerValue":
            return int(content)
        if kind == "valueReference":
            return self.node(self._values[content], scope)
        if kind == "argumentReference":
            return scope[content]
        if kind == "arrayValue":
            return [self.node(item, scope) for item in content.get("values", [])]
        if kind == "dictionaryValue":
            return {key: self.node(item, scope) for key, item in content.get("values", {}).items()}
        if kind == "functionDefinitionValue":
            names, body = content.get("argumentNames", []), {"valueReference": content["body"]}
            return lambda *values: self.node(body, {**scope, **dict(zip(names, values, strict=False))})
        if kind == "functionInvocationValue":
            arguments = {name: self.node(item, scope) for name, item in content.get("arguments", {}).items()}
            if "functionReference" in content:
                return self.node({"valueReference": content["functionReference"]}, scope)(*arguments.values())
            return self._call(content["functionName"], arguments)
        raise EarthEngineError(f"the test server does not know the expression node '{kind}'")

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "Image.load":
            return self._image(arguments["id"])
        if name == "ImageCollection.load":
            return self._collection(arguments["id"])
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](**arguments)
        room, _, method = name.partition(".")
        result: Any = None
        if room == "Filter":
            result = make_filter(method, arguments)
        elif room == "Image":
            result = image_function(method, arguments)
        elif room == "GeometryConstructors":
            return _geometry(method, arguments)
        if result is None:
            raise EarthEngineError(f"the test server does not know the function '{name}'")
        return result

    def _image(self, asset_id: str) -> Element:
        if asset_id not in self._assets:
            raise EarthEngineError(
                f"Image.load: Image asset '{asset_id}' not found (does not exist or caller does not have access)."
            )
        return self._assets[asset_id]

    def _collection(self, asset_id: str) -> Collection:
        found = tuple(image for key, image in self._assets.items() if key.startswith(asset_id + "/"))
        if not found:
            raise EarthEngineError(
                f"ImageCollection.load: ImageCollection asset '{asset_id}' not found "
                "(does not exist or caller does not have access)."
            )
        return Collection(found, id=asset_id)


def _filter(collection: Collection, filter: Callable[[Element], bool]) -> Collection:
    return replace(collection, elements=tuple(element for element in collection.elements if filter(element)))


def _map(collection: Collection, baseAlgorithm: Callable[[Any], Any], dropNulls: bool = False) -> Collection:
    mapped = [baseAlgorithm(element) for element in collection.elements]
    kept = tuple(element for element in mapped if element is not None or not dropNulls)
    if not all(isinstance(element, Element) for element in kept):
        raise EarthEngineError("Collection.map: A mapped algorithm must return a Feature or Image.")
    return Collection(kept, of_images=all(element.bands is not None for element in kept))


def _limit(
    collection: Collection, limit: int | None = None, key: str | None = None, ascending: bool = True
) -> Collection:
    elements = list(collection.elements)
    if key is not None:
        elements.sort(key=lambda element: element.get(key), reverse=not ascending)
    return replace(collection, elements=tuple(elements[:limit]))


def _first(collection: Collection) -> Element | None:
    return collection.elements[0] if collection.elements else None


def _to_list(collection: Collection, count: int, offset: int = 0) -> list[Element]:
    return list(collection.elements[int(offset) : int(offset) + int(count)])


def _distinct(collection: Collection, properties: list[str] | str) -> Collection:
    names = [properties] if isinstance(properties, str) else properties
    seen: dict[tuple[str, ...], Element] = {}
    for element in collection.elements:
        seen.setdefault(tuple(repr(element.get(name)) for name in names), element)
    return replace(collection, elements=tuple(seen.values()))


def _present(collection: Collection, property: str) -> list[Any]:
    values = (element.get(property) for element in collection.elements)
    return [value for value in values if value is not None]


def _reduce_columns(collection: Collection, reducer: Reducer, selectors: list[str]) -> dict[str, Any]:
    # Rows that lack one of the values do not count.
    rows = [[element.get(name) for name in selectors] for element in collection.elements]
    rows = [row for row in rows if None not in row]
    if reducer.name == "repeated toList":
        return {"list": [[row[n] for row in rows] for n in range(len(selectors))]}
    if len(selectors) != reducer.inputs:
        raise EarthEngineError(f"Collection.reduceColumns: Need {reducer.inputs} inputs, got {len(selectors)}.")
    if reducer.name == "toList":
        return {"list": [row[0] for row in rows] if reducer.inputs == 1 else rows}
    values = [row[0] for row in rows]
    return {reducer.name: _REDUCERS[reducer.name](values) if values else None}


_REDUCERS: dict[str, Callable[[list[Any]], Any]] = {"count": len, "min": min, "max": max, "first": lambda v: v[0]}


def _geometry(kind: str, arguments: dict[str, Any]) -> BaseGeometry:
    if kind == "BBox":
        return shapely.box(*(arguments[side] for side in ("west", "south", "east", "north")))
    if kind == "MultiGeometry":
        return shapely.GeometryCollection([as_geometry(part) for part in arguments["geometries"]])
    coordinates = arguments["coordinates"]
    if arguments.get("crs") not in (None, "EPSG:4326"):
        raise EarthEngineError("the test server takes geometries in EPSG:4326 only")
    if kind == "Rectangle":
        flat = [number for point in coordinates for number in (point if isinstance(point, list) else [point])]
        return shapely.box(flat[0], flat[1], flat[-2], flat[-1])
    return shapely.geometry.shape({"type": kind, "coordinates": coordinates})


def _feature(
    geometry: Any = None, metadata: Mapping[str, Any] | None = None, geometryKey: str | None = None
) -> Element:
    shape = None if geometry is None else as_geometry(geometry)
    return Element({key: value for key, value in (metadata or {}).items() if value is not None}, lambda: shape)


def _set(object: Element, key: str, value: Any = None) -> Element:
    return replace(object, properties={**object.properties, key: value})


def _set_multi(object: Element, properties: Mapping[str, Any]) -> Element:
    return replace(object, properties={**object.properties, **properties})


def _to_dictionary(element: Element, properties: list[str] | None = None) -> dict[str, Any]:
    names = list(element.properties) if properties is None else properties
    return {name: element.get(name) for name in names if element.get(name) is not None}


def _date(value: Any, timeZone: str | None = None) -> Date:
    return Date(milliseconds(value))


def _date_range(start: Any, end: Any = None, timeZone: str | None = None) -> DateRange:
    first = milliseconds(start)
    last = first + 1 if end is None else milliseconds(end)
    if last < first:
        raise EarthEngineError("DateRange: The start date must be before the end date.")
    return DateRange(first, last)


def _advance(date: Any, delta: float, unit: str, timeZone: str | None = None) -> Date:
    start = Date(milliseconds(date)).utc
    unit = unit.rstrip("s")
    if unit in ("month", "year"):
        months = start.year * 12 + start.month - 1 + int(delta) * (12 if unit == "year" else 1)
        end = start.replace(year=months // 12, month=months % 12 + 1)
    else:
        end = start + timedelta(**{unit + "s": delta})
    return Date(milliseconds(end.isoformat()))


def _format_date(date: Any, format: str | None = None, timeZone: str | None = None) -> str:
    moment = Date(milliseconds(date)).utc
    if format is None:
        return moment.strftime("%Y-%m-%dT%H:%M:%S")
    for theirs, ours in (("YYYY", "%Y"), ("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"),
                         ("ss", "%S"), ("'", "")):  # fmt: skip
        format = format.replace(theirs, ours)
    return moment.strftime(format)


def _repeat(reducer: Reducer, count: int) -> Reducer:
    if reducer != Reducer("toList"):
        raise EarthEngineError("the test server repeats Reducer.toList only")
    return Reducer("repeated toList", int(count))


def _flatten(list: list[Any]) -> list[Any]:
    def leaves(items: Any) -> Iterator[Any]:
        for item in items:
            yield from leaves(item) if isinstance(item, type([])) else [item]

    return [*leaves(list)]


def _get(object: Element, property: str) -> Any:
    return object.get(property)


def _geometry_of(feature: Element, **_: Any) -> Any:
    return feature.geometry()


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ImageCollection.fromImages": lambda images: Collection(tuple(images)),
    "ImageCollection.mosaic": mosaic,
    "ImageCollection.merge": lambda collection1, collection2: Collection(collection1.elements + collection2.elements),
    "Collection": lambda features: Collection(tuple(features), of_images=False),
    "Collection.filter": _filter,
    "Collection.map": _map,
    "Collection.limit": _limit,
    "Collection.first": _first,
    "Collection.toList": _to_list,
    "Collection.distinct": _distinct,
    "Collection.size": lambda collection: len(collection.elements),
    "Collection.geometry": lambda collection, **_: as_geometry(collection),
    "Collection.reduceColumns": _reduce_columns,
    "AggregateFeatureCollection.array": _present,
    "AggregateFeatureCollection.count": lambda collection, property: len(_present(collection, property)),
    "AggregateFeatureCollection.count_distinct": lambda collection, property: len(set(_present(collection, property))),
    "AggregateFeatureCollection.first": lambda collection, property: next(iter(_present(collection, property)), None),
    "AggregateFeatureCollection.min": lambda collection, property: min(_present(collection, property), default=None),
    "AggregateFeatureCollection.max": lambda collection, property: max(_present(collection, property), default=None),
    "AggregateFeatureCollection.sum": lambda collection, property: sum(_present(collection, property)),
    "Feature": _feature,
    "Element.get": _get,
    "Element.getNumber": _get,
    "Element.getString": _get,
    "Element.set": _set,
    "Element.setMulti": _set_multi,
    "Element.toDictionary": _to_dictionary,
    "Element.propertyNames": lambda element: list(element.properties),
    "Element.geometry": _geometry_of,
    "Feature.geometry": _geometry_of,
    "Image.geometry": _geometry_of,
    "Element.id": lambda element: element.get("system:index"),
    "Feature.id": lambda element: element.get("system:index"),
    "Image.id": lambda element: element.get("system:index"),
    "Image.bandNames": lambda image: [band.name for band in image.image_bands()],
    "Image.date": lambda image: _date(image.get("system:time_start")),
    "Reducer.toList": lambda tupleSize=None, numOptional=0: Reducer("toList", int(tupleSize or 1)),
    "Reducer.repeat": _repeat,
    "Reducer.count": lambda: Reducer("count"),
    "Reducer.min": lambda numInputs=1: Reducer("min"),
    "Reducer.max": lambda numInputs=1: Reducer("max"),
    "Reducer.first": lambda: Reducer("first"),
    "List": lambda value: list(value),
    "List.map": lambda list, baseAlgorithm, dropNulls=False: [
        item for item in map(baseAlgorithm, list) if item is not None or not dropNulls
    ],
    "List.get": lambda list, index: list[int(index)],
    "List.size": lambda list: len(list),
    "List.length": lambda list: len(list),
    "List.slice": lambda list, start, end=None, step=None: list[start:end:step],
    "List.cat": lambda list, other: list + other,
    "List.contains": lambda list, element: element in list,
    "List.distinct": lambda list: [item for n, item in enumerate(list) if item not in list[:n]],
    "List.flatten": _flatten,
    "List.sort": lambda list, keys=None: sorted(list),
    "List.zip": lambda list, other: [[a, b] for a, b in zip(list, other, strict=False)],
    "List.sequence": lambda start, end, step=1: [*range(int(start), int(end) + 1, int(step))],
    "Dictionary": lambda input=None: dict(input or {}),
    "Dictionary.get": lambda dictionary, key, defaultValue=None: dictionary.get(key, defaultValue),
    "Dictionary.set": lambda dictionary, key, value: {**dictionary, key: value},
    "Dictionary.combine": lambda first, second, overwrite=True: {**first, **second} if overwrite else {
        **second, **first},
    "Dictionary.fromLists": lambda keys, values: dict(zip(keys, values, strict=True)),
    "Dictionary.keys": lambda dictionary: sorted(dictionary),
    "Dictionary.values": lambda dictionary, keys=None: [dictionary[key] for key in keys or sorted(dictionary)],
    "Dictionary.select": lambda dictionary, selectors, ignoreMissing=False: {
        key: dictionary[key] for key in selectors if key in dictionary or not ignoreMissing
    },
    "Date": _date,
    "Date.millis": lambda date: milliseconds(date),
    "Date.advance": _advance,
    "Date.format": _format_date,
    "DateRange": _date_range,
    "String": lambda input: input if isinstance(input, str) else str(input),
    "Number": lambda input: input,
}  # fmt: skip
