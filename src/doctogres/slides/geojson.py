"""Outlines of lesions in GeoJSON (RFC 7946), as QuPath exports and opens them: a file per slide.

Coordinates are pixels of the full picture from its top left corner, so that the centre of the first pixel is at 0.5, 0.5.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn

import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping

from doctogres.errors import listed
from doctogres.slides.formats import ImageError
from doctogres.slides.reasons import Reason
from doctogres.slides.spelling import folded

Shape = Polygon | MultiPolygon

ANNOTATION: Final = "annotation"
UNCLASSIFIED: Final = "without a class"
DERIVED: Final = ": "  # between a class of QuPath and what is derived from it: "Tumor: Positive"


class OutlineError(ImageError):
    """The outlines of a slide cannot be used as its mask."""

    code: ClassVar[str] = Reason.MASK_OUTLINES


@dataclass(frozen=True)
class Outline:
    """An area on a slide.

    Attributes:
        shape: one polygon or several, with holes.
        name: what the annotation is called; may be empty.
        classification: its class; may be empty.
        colour: RGB of the class.
        measurements: by name.
    """

    shape: Shape
    name: str = ""
    classification: str = ""
    colour: tuple[int, int, int] = (200, 0, 0)
    measurements: Mapping[str, float] = field(default_factory=dict)


def is_geojson(data: bytes) -> bool:
    """Whether a file is JSON rather than a picture, by its first character."""
    return data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read_outlines(data: bytes, name: str, *, annotations: str = "") -> list[Outline]:
    """The annotations of a file that outline lesions.

    A FeatureCollection, an array of features (as QuPath exports without that option), a feature or a geometry. Detections,
    cells and tiles of QuPath are no annotations and do not count.

    Args:
        data: the file.
        name: of the file, for messages.
        annotations: comma-separated classes or names of the annotations that count, in any case; a class counts with
            what is derived from it. Empty: all, which then have to be of one class.

    Raises:
        OutlineError: not valid GeoJSON, an annotation without an area, an invalid outline, annotations of several classes
            of which none is chosen, or none of the chosen classes.
    """
    features = _features(_parsed(data, name), name)
    chosen = _chosen(features, annotations, name)
    return [_outline(feature, f"annotation {number} of {name}") for number, feature in chosen]


def write_outlines(outlines: Iterable[Outline], *, about: Mapping[str, Any] | None = None) -> str:
    """A FeatureCollection that QuPath opens: every outline an annotation with class, colour and measurements.

    Args:
        outlines: in pixels of the full picture.
        about: what is said of the slide as a whole; QuPath does not read it.
    """
    collection = {"type": "FeatureCollection", "features": [_feature(outline) for outline in outlines]}
    return json.dumps(collection | ({"doctogres": dict(about)} if about else {}), allow_nan=False)


def _feature(outline: Outline) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": ANNOTATION}
    if outline.name:
        properties["name"] = outline.name
    if outline.classification:
        properties["classification"] = {"name": outline.classification, "color": list(outline.colour)}
    if outline.measurements:
        properties["measurements"] = dict(outline.measurements)
    return {"type": "Feature", "geometry": mapping(outline.shape), "properties": properties}


def _parsed(data: bytes, name: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise OutlineError(f"{name} holds the number {constant}, which is no coordinate; export the outlines again")

    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise OutlineError(f"{name} is not valid JSON ({where}); export it again as GeoJSON") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise OutlineError(f"{name} is not valid JSON; export it again as GeoJSON") from error


def _features(content: Any, name: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The numbered annotations; whatever else QuPath keeps as an object is left out."""
    collected = isinstance(content, dict) and content.get("type") == "FeatureCollection"
    given = content.get("features") if collected else content
    items = given if isinstance(given, list) else [given]
    found: list[tuple[int, Mapping[str, Any]]] = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            raise OutlineError(f"{name} is JSON but not GeoJSON; export the annotations as GeoJSON")
        feature = item if item["type"] == "Feature" else {"type": "Feature", "geometry": item, "properties": {}}
        if _text(_properties(feature).get("objectType")) in ("", ANNOTATION):
            found.append((number, feature))
    return found


def _properties(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _class_of(feature: Mapping[str, Any]) -> str:
    """The class; QuPath writes `name` or, from 0.4 on for derived classes, `names`."""
    classification = _properties(feature).get("classification")
    if not isinstance(classification, dict):
        return _text(classification)
    names = classification.get("names")
    return _text(classification.get("name")) or (DERIVED.join(map(_text, names)) if isinstance(names, list) else "")


def _chosen(
    features: Sequence[tuple[int, Mapping[str, Any]]], annotations: str, name: str
) -> Sequence[tuple[int, Mapping[str, Any]]]:
    wanted = {folded(text) for text in annotations.split(",") if text.strip()}
    classes = sorted({_class_of(feature) or UNCLASSIFIED for _, feature in features})
    if not wanted:
        if len(classes) > 1:
            raise OutlineError(
                f"{name} has annotations of several classes ({listed(classes)}); say which are lesions with "
                f"annotations={classes[0]}"
            )
        return features
    found = [(number, feature) for number, feature in features if wanted & _names_of(feature)]
    if features and not found:
        raise OutlineError(
            f"{name} has no annotation of the class or name {annotations} (its classes: {listed(classes)}); give "
            "another annotations="
        )
    return found


def _names_of(feature: Mapping[str, Any]) -> set[str]:
    """What an annotation may be chosen by: its name, its class, and the class that this one is derived from."""
    classification = _class_of(feature)
    texts = _text(_properties(feature).get("name")), classification, classification.partition(DERIVED)[0]
    return {folded(text) for text in texts if text}


def _outline(feature: Mapping[str, Any], name: str) -> Outline:
    polygons = _polygons(feature.get("geometry"), name)
    shape: Shape = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    if not shape.is_valid:
        raise OutlineError(f"{name} is invalid ({_explained(shape)}); draw the outline again without crossing itself")
    return Outline(shape, _text(_properties(feature).get("name")), _class_of(feature))


def _explained(shape: Shape) -> str:
    """What is wrong, and where: `Self-intersection[5 5]` in words."""
    what, _, where = shapely.is_valid_reason(shape).partition("[")
    at = f" near {', '.join(f'{float(part):.0f}' for part in where.rstrip(']').split()[:2])}" if where else ""
    return f"{what.lower()}{at}"


def _polygons(geometry: Any, name: str) -> list[Polygon]:
    kind = _text(geometry.get("type")) if isinstance(geometry, dict) else ""
    coordinates = geometry.get("coordinates") if kind else None
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list) and geometry["geometries"]:
        return [polygon for part in geometry["geometries"] for polygon in _polygons(part, name)]
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise OutlineError(f"{name} is a {kind}, which has no area; delete it, or choose others with annotations=")
    if kind == "Polygon":
        coordinates = [coordinates]
    elif kind != "MultiPolygon":
        coordinates = None
    if (
        not isinstance(coordinates, list)
        or not coordinates
        or not all(isinstance(rings, list) and rings for rings in coordinates)
    ):
        raise OutlineError(f"{name} has an empty geometry; delete it, or draw its outline")
    return [_polygon(rings, name) for rings in coordinates]


def _polygon(rings: list[Any], name: str) -> Polygon:
    shell, *holes = [_ring(ring, name) for ring in rings]
    return Polygon(shell, holes)


def _ring(ring: Any, name: str) -> list[tuple[float, float]]:
    """The positions of a ring: at least four, the last one equal to the first (RFC 7946, section 3.1.6)."""
    if not isinstance(ring, list) or not all(map(_is_position, ring)):
        raise OutlineError(f"{name} has a position that is not two numbers; export it again as GeoJSON")
    positions = [(float(position[0]), float(position[1])) for position in ring]
    if len(positions) < 4 or positions[0] != positions[-1]:
        raise OutlineError(f"{name} has an outline that is not closed; draw it again")
    return positions


def _is_position(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(part, int | float) and not isinstance(part, bool) for part in value[:2])
        and all(abs(part) < 1e12 and math.isfinite(part) for part in value[:2])
    )
