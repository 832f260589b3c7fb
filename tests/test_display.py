"""What people read."""

from __future__ import annotations

from ernie_rt.display import columns, did_you_mean, human_bytes, human_count, printable, shown


def test_sizes_and_counts() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1 << 20, 3 << 39)] == ["0 B", "1023 B", "1.0 MiB", "1.5 TiB"]
    assert [human_count(n) for n in (0, 999, 4_994_576, 21_825_437_888)] == ["0", "999", "4.99 M", "21.8 B"]


def test_columns() -> None:
    assert columns([["NAME", "", "SUMMARY"], ["a", "12", ""], ["longer", "3", "two words"]]) == (
        "NAME        SUMMARY\na       12\nlonger  3   two words"
    )


def test_columns_of_a_width() -> None:
    rows = [["NAME", "SUMMARY"], ["eager", "PyTorch, op by op: CPU and any GPU that PyTorch knows"]]
    shown = columns(rows, 40)
    assert shown == "NAME   SUMMARY\neager  PyTorch, op by op: CPU and any\n       GPU that PyTorch knows"
    assert columns(rows, 200) == columns(rows)
    models = [["NAME", "LAYERS", "HUB ID"], ["0.3B", "18", "baidu/ERNIE-4.5-0.3B-PT"], ["own", "2", ""]]
    assert columns(models, 30) == ("NAME  LAYERS\n    HUB ID\n0.3B  18\n    baidu/ERNIE-4.5-0.3B-PT\nown   2")
    cards = [["MAC", "SEVERAL"], ["M5 Ultra", "8 x NVIDIA GeForce RTX 4090"]]
    beside = "MAC       SEVERAL\nM5 Ultra  8 x NVIDIA\n          GeForce RTX\n          4090"
    assert columns(cards, 21) == beside
    assert columns(cards, 18) == "MAC\n    SEVERAL\nM5 Ultra\n    8 x NVIDIA\n    GeForce RTX\n    4090", "not squeezed"
    assert columns([["a", ""], ["b", "two   blanks"]]) == "a\nb  two   blanks"


def test_near_names() -> None:
    assert did_you_mean("Demmo", ["demo", "0.3B"]) == "Did you mean 'demo'? "
    assert did_you_mean("0.3b-bas", ["demo", "0.3B-Base"]) == "Did you mean '0.3B-Base'? "
    assert did_you_mean("zzz", ["demo"]) == ""


def test_values_that_are_shown() -> None:
    assert (shown(1.5), shown("a\n"), shown("x" * 1000)) == ("1.5", r"'a\n'", "'" + "x" * 78 + "…")
    assert (shown(10**5000), shown([1] * 1000)) == ("an integer of 16610 bits", "a list of 1000 entries")
    assert shown((10**5000,)) == "a tuple"


def test_printable_text_is_one_line_and_steers_nothing() -> None:
    assert printable("é的 a\n\x1b[2J\u202e\x9b") == r"é的 a\n\x1b[2J\u202e\x9b"
