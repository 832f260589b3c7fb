"""The table of devices, and how one is found."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest

from ernie_rt.errors import OptionError
from ernie_rt.planning.device import GIB, Device, find_device, known_devices, room

KINDS = {"cpu", "cuda", "mps"}
DTYPES = {"float32", "bfloat16", "float16", "float8", "int8"}


@pytest.fixture(scope="module")
def devices() -> dict[str, Device]:
    found = known_devices()
    assert len({device.name for device in found}) == len(found)
    return {device.name: device for device in found}


def test_every_entry_is_whole(devices: dict[str, Device]) -> None:
    for name, device in devices.items():
        assert device.kind in KINDS, name
        assert 8 * GIB <= device.memory_bytes <= 6 << 40, name
        assert 50e9 <= device.bandwidth <= 8e12, name
        assert device.flops.keys() <= DTYPES, name
        assert all(1e12 < peak < 1e16 for peak in device.flops.values()), name
        assert re.match(r"(NVIDIA|AMD|Apple|Intel), .*https://\S+", device.source), name
        assert device.flops or device.kind == "mps", name
        assert device.features or device.kind == "mps", name


def test_nothing_stands_in_the_table_that_is_not_read() -> None:
    read = json.loads((files("ernie_rt.planning") / "devices.json").read_text("utf-8"))
    entries = read["devices"]
    assert read["sources"].keys() == {entry["source"] for entry in entries}
    assert read["operations"].keys() == {kind for entry in entries for kind, *_ in entry.get("units", ())}
    fields = {"name", "also", "kind", "source", "memory_mib", "features", "bandwidth_gb", "channels"}
    fields |= {"megatransfers", "tflops", "units"}
    for entry in entries:
        assert entry.keys() <= fields
        assert ("bandwidth_gb" in entry) != ("channels" in entry and "megatransfers" in entry)
        assert not ("tflops" in entry and "units" in entry)


@pytest.mark.parametrize(
    ("name", "bandwidth", "dtype", "peak"),
    [
        ("NVIDIA GeForce RTX 3090", 936e9, "bfloat16", 71.2e12),
        ("NVIDIA GeForce RTX 4090", 1008e9, "bfloat16", 165.2e12),
        ("NVIDIA GeForce RTX 4090", 1008e9, "float8", 330.3e12),
        ("NVIDIA GeForce RTX 5090", 1792e9, "bfloat16", 209.5e12),
        ("NVIDIA GeForce RTX 5090", 1792e9, "float8", 419e12),
        ("AMD EPYC 9654", 460.8e9, "float32", 7.37e12),
        ("Intel Core Ultra 9 285K", 102.4e9, "float32", 2.586e12),
        ("AMD Ryzen AI Max+ 395", 256e9, "float32", 3.072e12),
    ],
)
def test_computed_peaks_are_those_of_the_white_papers(name: str, bandwidth: float, dtype: str, peak: float) -> None:
    device = find_device(name)
    assert device.bandwidth == pytest.approx(bandwidth, rel=1e-6)
    assert device.flops[dtype] == pytest.approx(peak, rel=2e-3)


def test_an_unlike_pair_of_cores_has_the_peaks_that_both_have(devices: dict[str, Device]) -> None:
    assert devices["Intel Core Ultra 9 285K"].flops.keys() == {"float32"}
    assert "8 Lion Cove at 3700 MHz and 16 Skymont at 3200 MHz" in devices["Intel Core Ultra 9 285K"].source


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        (" GeForce-RTX 4090 ", "NVIDIA GeForce RTX 4090"),
        ("RTX 4080", "NVIDIA GeForce RTX 4080"),
        ("RTX 4080 Super", "NVIDIA GeForce RTX 4080 SUPER"),
        ("3060", "NVIDIA GeForce RTX 3060 12GB"),
        ("a100 40gb", "NVIDIA A100 40GB"),
        ("A100 SXM", "NVIDIA A100 80GB SXM"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB SXM"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM"),
        ("H200", "NVIDIA H200 SXM"),
        ("Tesla T4", "NVIDIA T4"),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Workstation"),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada"),
        ("7900 xtx", "AMD Radeon RX 7900 XTX"),
        ("m4 max 128gb", "Apple M4 Max 128GB"),
        ("285K", "Intel Core Ultra 9 285K"),
        ("9950x", "AMD Ryzen 9 9950X"),
        ("8592", "Intel Xeon Platinum 8592+"),
    ],
)
def test_a_device_is_found_by_what_people_call_it(said: str, name: str) -> None:
    assert find_device(said).name == name


def test_every_device_is_found_by_its_name(devices: dict[str, Device]) -> None:
    assert all(find_device(name) == device for name, device in devices.items())


@pytest.mark.parametrize(
    "said",
    ["L40", "H20", "4070 Ti", "3090 Ti", "5060", "16GB", "", "RTX", "7900 XT", "x" * 9999, "9950X" + " 1GB" * 2000],
)
def test_a_device_that_is_like_a_known_one_is_not_that_one(said: str) -> None:
    with pytest.raises(OptionError, match="is known"):
        find_device(said)


def test_suggestions() -> None:
    with pytest.raises(OptionError, match=r"'RTX 4900' is known\. Did you mean 'NVIDIA GeForce RTX 4090' or .*list"):
        find_device("RTX 4900")
    with pytest.raises(OptionError, match="several devices; expected NVIDIA H100 PCIe or NVIDIA H100 SXM"):
        find_device("h100")
    with pytest.raises(OptionError, match="expected Apple M4 Pro 24GB or Apple M4 Pro 48GB or Apple M4 Pro 64GB"):
        find_device("M4 Pro")


def test_a_cpu_has_the_memory_that_is_said_with_it() -> None:
    for said in ("Ryzen 9 9950X 64GB", "9950x, 64 GiB", "AMD Ryzen 9 9950X 64gb"):
        device = find_device(said)
        assert (device.name, device.memory_bytes) == ("AMD Ryzen 9 9950X", 64 * GIB)
    assert find_device("9950X 192GB").memory_bytes == 192 * GIB
    for said in ("9950X 0GB", "9950X 193GB", "9950X 256GB"):
        with pytest.raises(OptionError, match=r"9950X does not take so much memory; expected 1 GiB to 192\.0 GiB"):
            find_device(said)
    with pytest.raises(OptionError, match="is known"):
        find_device("RTX 4090 48GB")


def test_room() -> None:
    assert find_device("4090").memory_bytes - room(find_device("4090")) == 640 << 20
    assert room(find_device("M4 24GB")) == 16 * GIB
    assert room(find_device("M4 32GB")) == 32 * GIB * 2 // 3
    assert room(find_device("M3 Pro 36GB")) == 27 * GIB
    assert room(find_device("9950X 64GB")) == 64 * GIB
