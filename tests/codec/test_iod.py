"""Visual observers' IOD records."""

from __future__ import annotations

import numpy as np
import pytest

from fusionnode.codec.iod import IodDecoder
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Decoded, Kind

HEAD = "12345 98 123A   2007 G 20081122112233444 56 "


def read(text: str | bytes, *, cut: int = 10_000) -> tuple[Decoded, Outcomes]:
    outcomes = Outcomes()
    decoder = IodDecoder("file", outcomes)
    data = text if isinstance(text, bytes) else text.encode()
    parts = [decoder.decode([(7, data[i : i + cut])]) for i in range(0, len(data), cut)] + [decoder.finish()]
    return Decoded(np.concatenate([part.detections for part in parts]), []), outcomes


@pytest.mark.parametrize(
    ("record", "lon_deg", "lat_deg", "kind"),
    [
        (
            "15 1122334-112233 46",
            (11 + 22 / 60 + 33.4 / 3600) * 15,
            -(11 + 22 / 60 + 33 / 3600),
            Kind.OPTICAL_RADEC,
        ),
        ("25 1122   +1122   28", (11 + 22 / 60) * 15, 11 + 22 / 60, Kind.OPTICAL_RADEC),
        ("35 2027142-289077 26", (20 + 27.142 / 60) * 15, -28.9077, Kind.OPTICAL_RADEC),
        ("75 1122334+112222 36", (11 + 22 / 60 + 33.4 / 3600) * 15, 11.2222, Kind.OPTICAL_RADEC),
        ("40 1122334+112233", 112 + 23 / 60 + 34 / 3600, 11 + 22 / 60 + 33 / 3600, Kind.OPTICAL_AZEL),
        ("50 1122334+112233", 112 + 23.34 / 60, 11 + 22.33 / 60, Kind.OPTICAL_AZEL),
        ("60 1122334+112233", 112.2334, 11.2233, Kind.OPTICAL_AZEL),
    ],
)
def test_every_angle_format(record: str, lon_deg: float, lat_deg: float, kind: Kind) -> None:
    decoded, outcomes = read(HEAD + record + "\n")
    (one,) = decoded.detections
    assert outcomes.of("file") == {"frame_accepted": 1}
    assert np.degrees(one["lon_rad"]) == pytest.approx(lon_deg, abs=1e-9)
    assert np.degrees(one["lat_rad"]) == pytest.approx(lat_deg, abs=1e-9)
    assert one["kind"] == kind
    assert one["sensor_id"] == 2007
    assert one["t_meas_ns"] == tai_ns_from_utc_text("2008-11-22T11:22:33.444")


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (HEAD + "16 1122334-112233 46", Outcome.FRAME_UNKNOWN_TYPE),  # axes of another epoch
        (HEAD + "85 1122334-112233 46", Outcome.FRAME_UNKNOWN_TYPE),
        (HEAD + "15 1162334-112233 46", Outcome.FRAME_BAD_FIELD),  # 62 minutes
        (HEAD + "15 11x2334-112233 46", Outcome.FRAME_BAD_FIELD),
        (HEAD + "15 1122334 112233 46", Outcome.FRAME_BAD_FIELD),
        (HEAD.replace("20081122", "20081322") + "15 1122334-112233 46", Outcome.FRAME_BAD_FIELD),
        ("                2007 C 200811231130", Outcome.FRAME_MALFORMED),
        ("é" * 60, Outcome.FRAME_MALFORMED),
        ("x" * 300, Outcome.FRAME_TOO_LONG),
    ],
)
def test_what_cannot_be_used_is_counted(line: str, outcome: Outcome) -> None:
    good = HEAD + "35 2027142-289077 26"
    decoded, outcomes = read(f"{good}\n{line}\n{good}")
    assert len(decoded.detections) == 2
    assert outcomes.of("file") == {"frame_accepted": 2, outcome.value: 1}


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_the_cut_of_the_bytes_does_not_matter(cut: int) -> None:
    text = "\r\n".join([HEAD + "35 2027142-289077 26", "", "x" * 300, HEAD + "35 2027142+289077 26"])
    whole, cut_up = read(text)[0].detections, read(text, cut=cut)[0].detections
    assert whole["seq"].tolist() == [1, 4]
    for name in ("t_meas_ns", "lon_rad", "lat_rad", "sensor_id"):
        assert (whole[name] == cut_up[name]).all()
