"""Faults planted in an environment for real: `ernie-rt doctor` finds each, and it is gone once its fix has been run,
as printed, in a shell."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

import pytest

from support.broken_plugins import ENGINE, PLUGIN, Stranger, install
from support.environments import Environment, environment, wheel_of

pytestmark = pytest.mark.long

HANGS = ENGINE.replace("pass", "def submit(self, step):\n        import threading; threading.Event().wait()\n")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("environment"))


def heal(
    sound: Environment, seen: str, severity: str, backend: str = "reference", plant: str = "true", **variables: str
) -> dict[str, Any]:
    """See the finding after the line that plants a fault; run its command, and see it gone."""
    code, found = sound.doctor(plant, backend=backend, **variables)
    finding = next((each for each in found if seen in each["seen"]), None)
    assert finding is not None, found
    assert finding["severity"] == severity and code == (1 if any(f["severity"] == "broken" for f in found) else 0)
    assert finding["command"] and finding["costs"]
    code, found = sound.doctor(plant, finding["command"], backend=backend, **variables)
    assert not [each for each in found if seen in each["seen"]], found
    assert code == 0 or any(each["severity"] == "broken" for each in found)
    return finding


def plugin(sound: Environment, name: str, stranger: Stranger) -> None:
    """A stranger's plugin as pip installs it."""
    install(sound.site, name, stranger)
    info = sound.site / f"{name}_plugin-1.5.dist-info"
    metadata = [f"{info.name}/{file},," for file in ("METADATA", "RECORD", "INSTALLER", "entry_points.txt")]
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("\n".join([f"{name}.py,,", f"{name}_engine.py,,", *metadata, ""]))


def test_an_environment_without_faults(sound: Environment) -> None:
    code, found = sound.doctor(backend="onnx", OMP_NUM_THREADS="")
    assert code == 0 and not [each for each in found if each["about"] not in ("threads", "memory", "disk")], found


def test_a_package_that_is_damaged(sound: Environment) -> None:
    wheel_of(sound, "onnx")
    helper = sound.site / "onnx" / "helper.py"
    helper.unlink()  # a name of its own, so that the file stays elsewhere
    helper.write_text("raise RuntimeError('half of a file')\n")
    finding = heal(sound, "onnx 1.", "broken", "onnx")
    assert "pip install --force-reinstall --no-deps onnx==" in finding["command"]


def test_a_package_that_is_damaged_and_needed_to_look(sound: Environment) -> None:
    wheel_of(sound, "numpy")
    start = sound.site / "numpy" / "__init__.py"
    start.unlink()
    start.write_text("import there_is_no_such_module\n")
    ran = sound.run("ernie-rt doctor")
    told, _, command = ran.stderr.strip().partition("pip install")
    assert ran.returncode == 1 and "No module named 'there_is_no_such_module'" in told and "Traceback" not in told
    code, found = sound.doctor(f"pip install{command}")
    assert code == 0, found


def test_a_library_of_operators_that_is_gone(sound: Environment) -> None:
    library = next((sound.site / "ernie_rt_onnx").glob("_ops*.so"), None)
    if library is None:
        pytest.skip("this installation has no library of operators")
    library.unlink()
    heal(sound, "the library of operators was not built", "slow", "onnx")


def test_kernels_that_are_left_out(sound: Environment) -> None:
    heal(sound, "ERNIE_RT_KERNELS=none", "slow", "onnx", ERNIE_RT_KERNELS="none")


def test_an_entry_point_that_an_older_version_has_left(sound: Environment) -> None:
    (points,) = sound.site.glob("ernie_rt-*.dist-info/entry_points.txt")
    points.write_text(points.read_text().replace("[ernie_rt]\n", "[ernie_rt]\nghost = ernie_rt_ghost\n"))
    heal(sound, "ghost (ernie-rt ", "broken")


def test_a_plugin_that_cannot_be_imported(sound: Environment) -> None:
    plugin(sound, "lost", Stranger("import there_is_no_such_module", "broken", None))
    assert heal(sound, "lost (lost-plugin 1.5) is broken", "broken")["command"] == "pip uninstall lost-plugin"
    assert not (sound.site / "lost.py").exists()


def test_a_plugin_that_hangs(sound: Environment) -> None:
    plugin(sound, "hangs", Stranger(PLUGIN, "fails when used", None, HANGS))
    code, found = sound.doctor(backend="hangs --seconds 10")
    (finding,) = [each for each in found if each["severity"] == "broken"]
    assert code == 1 and "hangs: running a small model takes longer than 10 s" in finding["seen"]
    code, found = sound.doctor(finding["command"])
    assert code == 0 and not [each for each in found if "hangs" in each["seen"]]


def test_something_older_than_it_should_be(sound: Environment) -> None:
    wheel_of(sound, "jinja2")
    (info,) = sound.site.glob("[jJ]inja2-*.dist-info")
    metadata = info / "METADATA"
    text = metadata.read_text()
    metadata.unlink()
    metadata.write_text(re.sub("^Version: .*$", "Version: 3.0.0", text, count=1, flags=re.MULTILINE))
    heal(sound, "jinja2>=", "broken")


def test_threads_that_a_variable_bounds(sound: Environment) -> None:
    if (os.cpu_count() or 1) == 1:
        pytest.skip("one core is all that there is")
    heal(sound, "OMP_NUM_THREADS=1", "slow", OMP_NUM_THREADS="1")


def test_a_shell_that_is_bound_to_a_core(sound: Environment) -> None:
    if len(os.sched_getaffinity(0)) == 1 or shutil.which("taskset") is None:
        pytest.skip("one core is all that there is, or nothing binds to one")
    first = min(os.sched_getaffinity(0))
    heal(sound, "this shell is bound to 1 of ", "slow", plant=f"taskset --all-tasks --cpu-list --pid {first} $$")


def test_a_bound_of_address_space(sound: Environment) -> None:
    heal(sound, "this shell bounds address space", "slow", plant="ulimit -S -v 64000000")


def test_a_cache_that_everybody_may_write(sound: Environment) -> None:
    folder = sound.root / ".cache" / "ernie-rt"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    heal(sound, f"everybody may write {folder}", "broken")


def test_a_cache_in_a_folder_that_changes_with_every_other(sound: Environment) -> None:
    heal(sound, "not an absolute path", "broken", XDG_CACHE_HOME="cache")


def test_a_network_that_is_off(sound: Environment) -> None:
    heal(sound, "HF_HUB_OFFLINE=1", "remark", HF_HUB_OFFLINE="1")


def test_two_onnx_runtimes_over_each_other_and_what_is_left_of_them(sound: Environment) -> None:
    """As pip leaves them: the last one's files, and both lists of them."""
    (installed,) = {"onnxruntime", "onnxruntime-gpu"} & {each.name for each in sound.distributions()}
    for wheel in ("onnxruntime", "onnxruntime-gpu"):
        wheel_of(sound, installed, wheel)
    both = "pip install --quiet --no-deps --force-reinstall onnxruntime onnxruntime-gpu"
    assert sound.run(both).returncode == 0
    finding = heal(sound, "share their files", "broken", "onnx")
    assert finding["command"] == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime>=1.31'"
    assert sound.run(both, "pip uninstall -y onnxruntime-gpu").returncode == 0
    heal(sound, "the files of onnxruntime 1.", "broken", "onnx")
