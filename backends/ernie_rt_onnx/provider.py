"""Sessions of one execution provider, and proof that it runs what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import onnxruntime as ort

from ernie_rt.errors import BackendError

QUIET: Final = 3
"""ONNX Runtime says errors alone; what it warns of is its own affair."""
ABOUT_SHAPES: Final = frozenset({"Shape", "Size"})
"""Operators that read no number of a tensor: they may run on the CPU, wherever the others do."""
NAMED: Final = 5
"""Nodes that an error names."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider of ONNX Runtime with its options, and its device as bindings of memory name it."""

    name: str = "CPUExecutionProvider"
    device: str = "cpu"
    index: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def start(self, model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        """A session whose nodes all run there; BackendError when one would not.

        ONNX Runtime would go on with the CPU: for all nodes, where the provider cannot be loaded, where it fails (that
        fallback is Python's, and is switched off), and for each that it has no kernel for.
        """
        options.log_severity_level = QUIET
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.device != "cpu":
            ort.set_default_logger_severity(QUIET)
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        session = ort.InferenceSession(model, options, providers=[(self.name, dict(self.options))], enable_fallback=0)
        self.check_placement(session)
        return session

    def check_placement(self, session: ort.InferenceSession) -> None:
        """BackendError when the session does not have this provider, or another one runs more of it than shapes."""
        if self.name not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime could not load its {self.name}, and would have computed on the CPU",
                where=f"{self.device}:{self.index}",
                found=", ".join(session.get_providers()),
                hint="What it printed before this says why",
            )
        elsewhere = [
            f"{node.name or 'a node'} ({node.op_type})"
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name != self.name
            for node in part.get_nodes()
            if node.op_type not in ABOUT_SHAPES
        ]
        if elsewhere:
            more = f" and {len(elsewhere) - NAMED} more" if len(elsewhere) > NAMED else ""
            raise BackendError(
                f"ONNX Runtime would run parts of the model on the CPU, not by its {self.name}",
                where=f"{self.device}:{self.index}",
                expected="kernels for all operators; this ONNX Runtime lacks some",
                found=", ".join(elsewhere[:NAMED]) + more,
            )
