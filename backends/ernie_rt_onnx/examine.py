"""What keeps ONNX Runtime, and the library of operators, from their best here; and what really ran, by its profile."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from ernie_rt.contract import Executed, Finding
from ernie_rt.contract.drivers import nvidia_gpus
from ernie_rt.discovery.installed import OWN
from ernie_rt.discovery.requirements import reinstall
from ernie_rt.writing import temporary_folder
from ernie_rt_onnx import cuda
from ernie_rt_onnx.functions import DOMAIN
from ernie_rt_onnx.library import KERNELS, kernels, library_path

STOCK: Final = (
    "quantised weights run on ONNX Runtime's own operators: prompts of mixtures of experts take about twice as long, "
    "and every load copies the weights into private memory"
)
COMPILERS: Final = ("c++", "g++", "clang++", "cl")


def library() -> Iterator[Finding]:
    """Whether the library of operators was built, can be loaded, and has kernels for this processor."""
    asked, anew = os.environ.get(KERNELS), reinstall(distribution(OWN))
    path, name = library_path(), kernels()
    if asked == "none":
        yield Finding("slow", f"{KERNELS}=none switches the library of operators off", STOCK, f"unset {KERNELS}")
    elif path is None:
        lacking = "" if any(map(shutil.which, COMPILERS)) else "First install a C++ compiler, g++ or clang++"
        seen = "the library of operators was not built when ernie-rt was installed"
        yield Finding("slow", seen, STOCK, anew, lacking)
    elif name is None:
        seen = f"the library of operators, {path}, cannot be loaded: it is damaged, or of another kind of processor"
        yield Finding("slow", seen, STOCK, anew)
    elif asked:
        costs = "kernels that are not the best ones for this processor may run"
        yield Finding("remark", f"{KERNELS}={asked} chooses the kernels of operators", costs, f"unset {KERNELS}")


def gpu() -> Iterator[Finding]:
    """What keeps it from the GPUs that there are."""
    found = cuda.obstacle() if nvidia_gpus() else None
    if found is not None:
        seen, command = found
        costs = "it computes on the CPU, though this machine has a GPU of NVIDIA"
        yield Finding("slow", seen, costs, command, "" if command else "Update the driver of the GPU")


class Profiles:
    """A folder for what ONNX Runtime writes of sessions that are watched."""

    def __init__(self) -> None:
        self._folder = temporary_folder()

    def watch(self, options: ort.SessionOptions) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name, "profile"))

    def executed(self, sessions: Iterable[ort.InferenceSession]) -> Executed:
        """Which providers ran how many nodes, of how many the library's operators, in how many threads.

        It ends the profiles: what is run afterwards is not counted."""
        places: Counter[str] = Counter()
        ours = threads = 0
        for session in sessions:
            placed = [node for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
            names = {node.op_type for node in placed if node.domain == DOMAIN}
            names -= {node.op_type for node in placed if node.domain != DOMAIN}
            for node in _nodes(Path(session.end_profiling())):
                places[node["provider"]] += 1
                ours += node["op_name"] in names
                threads = max(threads, 1 + len(node.get("thread_scheduling_stats", {}).get("sub_threads", ())))
        notes = [f"onnxruntime {ort.__version__}", f"{threads} thread{'s' * (threads != 1)}"]
        if ours:
            notes.insert(0, f"{ours} by the library of operators ({kernels()})")
        return Executed(dict(places), tuple(notes))

    def close(self) -> None:
        self._folder.cleanup()


def _nodes(profile: Path) -> Iterator[Mapping[str, Any]]:
    """What a profile says of each node that ran."""
    for event in json.loads(profile.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            yield event["args"]
