"""Outlines of lesions in GeoJSON: what is read as a mask, what is refused, and that they are drawn where they lie."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import box

from doctogres.errors import DoctogresError
from doctogres.slides.geojson import Outline, OutlineError, is_geojson, read_outlines, write_outlines
from doctogres.slides.images import encode_png
from doctogres.slides.masks import read_with_mask
from doctogres.slides.outlines import filled, region_shape

SQUARE = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
HOLE = [[20, 30], [20, 50], [30, 50], [30, 30], [20, 30]]
RGB = np.full((100, 200, 3), 200, np.uint8)


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": "1",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def of_class(name: str, *rings: Any) -> dict[str, Any]:
    return feature(polygon(*rings), classification={"name": name, "color": [200, 0, 0]})


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def lesion(content: Any, annotations: str = "") -> np.ndarray:
    data = json.dumps(content).encode()
    return read_with_mask(encode_png(RGB), data, name="a.png", mask_name="a.geojson", annotations=annotations).mask


def expected(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(RGB.shape[:2], np.bool_)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    "content",
    [
        collection(feature(polygon(SQUARE))),
        [feature(polygon(SQUARE))],  # as QuPath exports without "FeatureCollection"
        feature(polygon(SQUARE)),
        polygon(SQUARE),
        polygon(SQUARE[::-1]),  # RFC 7946 asks readers to take rings of either direction
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {"type": "GeometryCollection", "geometries": [polygon(SQUARE)]},
        collection(feature(polygon([[*position, 3.5] for position in SQUARE]))),  # a height is left out
        collection(feature(polygon(SQUARE)), feature(polygon(SQUARE))),  # twice is once
        collection(feature(polygon(SQUARE)), {**feature({"type": "Point"}), "properties": {"objectType": "cell"}}),
    ],
)
def test_outlines_mark_the_pixels_inside(content: Any) -> None:
    assert np.array_equal(lesion(content), expected((10, 20, 40, 60)))


def test_a_hole_is_left_out_and_another_area_within_it_is_not() -> None:
    mask = lesion(polygon(SQUARE, HOLE))
    assert mask.sum() == 30 * 40 - 10 * 20
    assert not mask[40, 25]
    island = [[22, 35], [28, 35], [28, 45], [22, 45], [22, 35]]
    assert lesion({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [island]]})[40, 25]
    assert lesion(collection(feature(polygon(SQUARE, HOLE)), feature(polygon(SQUARE)))).sum() == 30 * 40


def test_no_outlines_are_an_empty_mask() -> None:
    assert not lesion(collection()).any()


def test_pixels_count_by_their_centres() -> None:
    corners = [[10.4, 20.6], [12.6, 20.6], [12.6, 22.4], [10.4, 22.4], [10.4, 20.6]]
    assert np.argwhere(lesion(polygon(corners))).tolist() == [[21, 10], [21, 11], [21, 12]]


@pytest.mark.parametrize(
    ("annotations", "boxes"),
    [
        ("Tumor", [(0, 0, 5, 5), (10, 0, 15, 5)]),  # with what is derived from it
        (" tumor ", [(0, 0, 5, 5), (10, 0, 15, 5)]),
        ("Tumor: Positive", [(10, 0, 15, 5)]),
        ("stroma,first", [(20, 0, 25, 5), (30, 0, 35, 5)]),  # a class and a name
    ],
)
def test_annotations_are_chosen_by_class_or_name(annotations: str, boxes: list[tuple[int, int, int, int]]) -> None:
    def at(left: int) -> Any:
        return [[left, 0], [left + 5, 0], [left + 5, 5], [left, 5], [left, 0]]

    content = collection(
        of_class("Tumor", at(0)),
        feature(polygon(at(10)), classification={"names": ["Tumor", "Positive"]}),
        of_class("Stroma", at(20)),
        feature(polygon(at(30)), name="First"),
    )
    assert np.array_equal(lesion(content, annotations), expected(*boxes))


BOWTIE = [[10, 10], [50, 50], [50, 10], [10, 50], [10, 10]]


@pytest.mark.parametrize(
    ("content", "annotations", "told"),
    [
        (collection(of_class("Tumor", SQUARE), of_class("Stroma", SQUARE)), "", "several classes (Stroma, Tumor); say"),
        (collection(of_class("Tumor", SQUARE), feature(polygon(SQUARE))), "", "(Tumor, without a class)"),
        (collection(of_class("Tumor", SQUARE)), "Necrosis", "no annotation of the class or name Necrosis (its classes"),
        (polygon(BOWTIE), "", "annotation 1 of a.geojson is invalid (self-intersection near 30, 30); draw"),
        (polygon(SQUARE, [[50, 70], [60, 70], [60, 80], [50, 70]]), "", "is invalid (hole lies outside shell"),
        (polygon(SQUARE[:-1]), "", "not closed"),
        (polygon(SQUARE[:2] + SQUARE[:1]), "", "not closed"),
        (polygon([[10, 20], [40, 20], [40, 60], [10, "60"], [10, 20]]), "", "position that is not two numbers"),
        (polygon([[10, 20], [40], [40, 60], [10, 20]]), "", "position that is not two numbers"),
        (polygon([[10, 20], [1e300, 20], [40, 60], [10, 20]]), "", "position that is not two numbers"),
        (polygon(), "", "empty geometry"),
        ({"type": "MultiPolygon", "coordinates": [[]]}, "", "empty geometry"),
        (collection(feature(None)), "", "empty geometry"),
        (collection(feature({"type": "Point", "coordinates": [3, 4]})), "", "is a Point, which has no area; delete it"),
        (polygon([[x + 180, y] for x, y in SQUARE]), "", "from 190, 20 to 220, 60, outside the picture of 200 x 100"),
        (polygon([[x, y - 40] for x, y in SQUARE]), "", "outside the picture"),
        ({"shapes": []}, "", "not GeoJSON"),
        ({"type": "FeatureCollection"}, "", "not GeoJSON"),
        ([[1, 2]], "", "not GeoJSON"),
        (polygon(3), "", "a.geojson"),
        ({"type": "Polygon", "coordinates": {"0": SQUARE}}, "", "empty geometry"),
        ({"type": "Topology"}, "", "empty geometry"),
    ],
)
def test_what_is_no_outline_is_refused_with_a_reason(content: Any, annotations: str, told: str) -> None:
    with pytest.raises(OutlineError) as caught:
        lesion(content, annotations)
    assert told in str(caught.value)
    assert "a.geojson" in str(caught.value)


@pytest.mark.parametrize(
    "data", [b'{"type": "Polygon"', b"[" * 100_000, b'{"type": "\xff"}', b'{"a": NaN}', b"[1e999]", b"{" + b"9" * 6000]
)
def test_damaged_json_is_refused_by_name(data: bytes) -> None:
    assert is_geojson(data)
    with pytest.raises(OutlineError, match=r"a\.geojson"):
        read_outlines(data, "a.geojson")


def test_more_outline_than_pixels_can_show_is_refused_and_not_drawn() -> None:
    squares = [Outline(box(0, 0, 4000, 1000)) for _ in range(16_000)]
    with pytest.raises(OutlineError, match="simplify"):
        filled(squares, (4000, 1000), "a.geojson")


def test_a_picture_does_not_count_as_outlines_nor_the_other_way_round() -> None:
    assert not is_geojson(encode_png(RGB))
    assert is_geojson(b"\xef\xbb\xbf \n{}")
    with pytest.raises(DoctogresError, match="is not a picture"):
        read_with_mask(b"{}", encode_png(RGB))


def turned_jpeg(rgb: np.ndarray, orientation: int) -> bytes:
    """A JPEG of these stored pixels that states an orientation."""
    data = cv2.imencode(".jpg", rgb[:, :, ::-1])[1].tobytes()
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation, 0, 0])
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def test_outlines_on_the_stored_pixels_are_turned_with_the_picture() -> None:
    """QuPath shows a picture as it is stored; only so this outline lies inside."""
    outline = polygon([[150, 20], [190, 20], [190, 60], [150, 60], [150, 20]])
    slide = read_with_mask(turned_jpeg(RGB, 6), json.dumps(outline).encode(), name="a.jpg", mask_name="a.geojson")
    assert slide.picture.working.shape[:2] == slide.mask.shape == (200, 100)
    assert np.array_equal(slide.mask, np.rot90(expected((150, 20, 190, 60)), -1))
    assert "mask_orientation" in slide.note


def blots(seed: int) -> np.ndarray:
    """Ellipses with holes, single pixels, and pixels that touch at a corner."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 160), np.uint8)
    for _ in range(rng.integers(1, 6)):
        centre, axes = tuple(map(int, rng.integers(0, 120, 2))), tuple(map(int, rng.integers(1, 40, 2)))
        cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
    return (mask ^ (rng.random(mask.shape) < 0.01 * (seed % 3))).astype(np.bool_)


@pytest.mark.parametrize("seed", range(30))
def test_a_mask_comes_back_from_its_outlines(seed: int) -> None:
    mask = blots(seed)
    written = write_outlines([Outline(region_shape(mask, x=7, y=3), "lesion", "Tumor", (1, 2, 3), {"p": 0.5})])
    (outline,) = read_outlines(written.encode(), "a.geojson", annotations="Tumor")
    assert outline.shape.area == mask.sum()
    assert (outline.name, outline.classification) == ("lesion", "Tumor")
    whole = filled([outline], (200, 150), "a.geojson")
    assert np.array_equal(whole[3:123, 7:167], mask)
    assert whole.sum() == mask.sum()


def test_a_region_is_filled_at_another_scale() -> None:
    mask = blots(4)
    outlines = [Outline(region_shape(mask))]
    assert np.array_equal(filled(outlines, (60, 40), "", left=20, top=10), mask[10:50, 20:80])
    doubled = filled(outlines, (320, 240), "", scale=2)
    assert np.array_equal(doubled, mask.repeat(2, axis=0).repeat(2, axis=1))


def test_what_is_written_has_the_keys_that_qupath_reads() -> None:
    outline = Outline(box(1, 2, 3, 4), "a 0.90", "Luminal A", (0, 114, 178), {"Luminal A": 0.9})
    (found,) = json.loads(write_outlines([outline], about={"slide_id": "s"}))["features"]
    assert found["properties"] == {
        "objectType": "annotation",
        "name": "a 0.90",
        "classification": {"name": "Luminal A", "color": [0, 114, 178]},
        "measurements": {"Luminal A": 0.9},
    }
