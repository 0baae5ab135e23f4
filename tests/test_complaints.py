"""A node that gets inputs it cannot use tells its operator, with a likely cause."""

from __future__ import annotations

from typing import Any

from fusionnode.complaints import complaints

NOTHING: dict[str, Any] = {"sensors": {}, "links": {}}


def told(sensors: dict[str, Any] | None = None, links: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return list(complaints(NOTHING, {"sensors": sensors or {}, "links": links or {}}))


def test_a_sensor_whose_detections_are_all_late_is_told_with_a_hint() -> None:
    (line,) = told({"radar": {"in": 8, "late": 8, "pending": 0}})
    assert (line["sensor"], line["of"], line["late"]) == ("radar", 8, 8)
    assert "TAI" in line["hint"]


def test_an_unknown_sensor_is_told_by_its_number() -> None:
    (line,) = told({"sensor:999": {"in": 3, "unknown_sensor": 3, "pending": 0}})
    assert line["sensor"] == "sensor:999"
    assert "id" in line["hint"]


def test_a_line_full_of_noise_is_told() -> None:
    (line,) = told(
        links={"line": {"up": True, "frame_bad_cobs": 13, "frame_accepted": 2, "rubbish_bytes": 900}}
    )
    assert (line["link"], line["of"]) == ("line", 15)
    assert "baud" in line["hint"]


def test_a_working_sensor_and_an_empty_sky_are_not_worth_a_word() -> None:
    assert told({"radar": {"in": 100, "used": 90, "late": 2, "unassociated": 8, "pending": 0}}) == []
    assert told({"radar": {"in": 50, "unassociated": 50, "pending": 0}}, {"line": {"up": True}}) == []


def test_only_what_came_since_the_last_look_counts() -> None:
    before = {"sensors": {"radar": {"in": 100, "late": 90, "used": 10}}, "links": {}}
    now = {"sensors": {"radar": {"in": 200, "late": 90, "used": 110}}, "links": {}}
    assert list(complaints(before, now)) == []
