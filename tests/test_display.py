"""What people read."""

from __future__ import annotations

from ernie_rt.display import columns, human_bytes, human_count, printable


def test_sizes_and_counts() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1 << 20, 3 << 39)] == ["0 B", "1023 B", "1.0 MiB", "1.5 TiB"]
    assert [human_count(n) for n in (0, 999, 4_994_576, 21_825_437_888)] == ["0", "999", "4.99 M", "21.8 B"]


def test_columns() -> None:
    assert columns([["NAME", "", "SUMMARY"], ["a", "12", ""], ["longer", "3", "two words"]]) == (
        "NAME        SUMMARY\na       12\nlonger  3   two words"
    )


def test_printable_text_is_one_line_and_steers_nothing() -> None:
    assert printable("é的 a\n\x1b[2J\u202e\x9b") == r"é的 a\n\x1b[2J\u202e\x9b"
