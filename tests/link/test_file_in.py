from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fusionnode.link.file_in import FileError, read

B3 = b"U8190736396343133731000740309 2404565 13846842 -122729 02191 01811 00000  4 4   00000\n"
TDM = b"CCSDS_TDM_VERS = 2.0\n"


@pytest.mark.parametrize(
    ("name", "data", "codec"),
    [
        ("a.b3", b"", "b3"),
        ("a.tdm", b"", "tdm"),
        ("a.KVN", b"x", "tdm"),
        ("a.txt", B3, "b3"),
        ("a.txt", b"\n" + TDM, "tdm"),
    ],
)
def test_the_kind_is_told_by_suffix_or_else_by_content(
    tmp_path: Path, name: str, data: bytes, codec: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == (codec, data)


def test_gzip_is_unpacked_whatever_the_name(tmp_path: Path) -> None:
    for name in ("a.b3.gz", "a"):
        (tmp_path / name).write_bytes(gzip.compress(B3))
        assert read(tmp_path / name) == ("b3", B3)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"hello", "expected a file of observations"), (gzip.compress(B3 * 100)[:-20], "damaged gzip")],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FileError, match=message) as caught:
        read(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.b3: cannot be read: No such file"):
        read(tmp_path / "a.b3")
