"""Choose a backend, a device and a dtype, and say why."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ernie_rt.build import accepted
from ernie_rt.contract.bases import BackendBase
from ernie_rt.contract.drivers import NAMES as NVIDIA
from ernie_rt.contract.protocols import Backend, Target
from ernie_rt.display import did_you_mean
from ernie_rt.errors import BackendError, CapacityError, OptionError
from ernie_rt.graph.types import FLOATS, DType, Storage
from ernie_rt.hooks import BackendInfo
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import DENSE_0_3B
from ernie_rt.planning.candidates import settled_dtype
from ernie_rt.planning.limits import batch_tokens
from ernie_rt.planning.speed import Predictor
from ernie_rt.planning.usual import usual_device

AUTOMATIC: Final[Mapping[str, frozenset[str]]] = {
    "onnx": frozenset({"cpu", "cuda"}),
    "eager": frozenset({"cpu", "cuda", "mps"}),
    "reference": frozenset({"cpu"}),
    "cudagraph": frozenset({"cuda"}),
}
"""What `auto` may choose, by kind of device; backends of other names are used when they are asked for."""
DRIVERS: Final = (*NVIDIA, "libamdhip64.so")
"""Libraries that come with drivers of GPUs: they tell at once whether PyTorch, which takes seconds, need be asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, a device of this machine, an activation dtype, and the reason in words.

    `passed_over` says of each backend that would have come first why it did not; the reason ends with it.
    """

    backend: str
    device: str
    dtype: DType
    reason: str
    passed_over: tuple[str, ...] = ()


def choose(
    host: PluginHost,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    stored: DType = "bfloat16",
    deterministic: bool = False,
    attempt: Callable[[Choice], object] = lambda choice: None,
    model: ModelConfig = DENSE_0_3B,
    storages: Mapping[str, Storage] | None = None,
) -> Choice:
    """Settle what is "auto": a device that is no CPU where there is one, and the backend that is predicted to take the
    least time there for a typical request to the model, its weights stored as `storages` say; behind all backends that
    have run on such a device come those that have not.

    `stored` is the checkpoint's dtype, which is kept where the backend computes in it. With `deterministic` only a
    backend is chosen that can be (`Target.deterministic`). `attempt` is given the choice, and raises CapacityError when
    the model does not fit; "auto" then goes on.

    Raises OptionError for a backend, device or dtype that is not to be had, BackendError when a backend that was named
    is not usable, or none is, CapacityError when the model fits none.
    """
    if dtype != "auto" and dtype not in FLOATS:
        raise unknown_dtype(dtype)
    if backend != "auto":
        choice = _settle(host, backend, device, dtype, stored, deterministic, "asked for")
        attempt(choice)
        return choice
    kinds = accelerators() if device == "auto" else ()
    kind = "cpu" if device == "auto" else device.partition(":")[0]
    known = {each for info in host.backends.values() for each in info.dtypes}

    def ranked(kind: str) -> list[str]:
        return by_prediction(host, kind, dtype=dtype, stored=stored, model=model, storages=storages)

    places = [(name, kind, f"the first that runs on {kind}") for kind in kinds for name in ranked(kind)]
    absent = [name for name, where in AUTOMATIC.items() if name not in host.backends and kind in where]
    here = [*absent, *ranked(kind)] if kind in known else AUTOMATIC  # so said without an import
    places += [(name, "cpu" if kinds else device, "predicted to be the fastest that is usable") for name in here]
    skipped: list[str] = []
    large: list[CapacityError] = []
    for name, place, reason in places:
        if name not in host.backends:
            if (absence := host.absence(name)) is not None:
                skipped.append(f"{name} is {absence}")
            continue
        try:
            choice = _settle(host, name, place, dtype, stored, deterministic, reason, skipped)
        except (BackendError, OptionError) as error:
            skipped.append(f"{name}: {error.what}")
            continue
        try:
            attempt(choice)
            return choice
        except CapacityError as error:
            skipped.append(f"{name} on {choice.device} in {choice.dtype}: {error.found}, {error.what}")
            large.append(error)
    if large:
        raise CapacityError(
            "the model fits no backend that is usable here",
            expected=large[0].expected,
            found="; ".join(skipped),
            hint=large[0].hint,
        )
    raise BackendError(
        f"no backend can run this on device {device!r} in dtype {dtype!r}: {'; '.join(skipped)}",
        hint=f"{_nearest_kind(host, device)}`ernie-rt backends` says what each one lacks",
    )


def by_prediction(
    host: PluginHost,
    kind: str,
    *,
    dtype: str = "auto",
    stored: DType = "bfloat16",
    model: ModelConfig = DENSE_0_3B,
    storages: Mapping[str, Storage] | None = None,
) -> list[str]:
    """The backends that `auto` may choose on a kind of device, in the order in which it tries them. One whose planner
    fails comes last: what is wrong with it is said when it is tried, and others may do."""
    names = [name for name, info in host.backends.items() if kind in info.dtypes and kind in AUTOMATIC.get(name, ())]
    if len(names) < 2:
        return names
    device = usual_device(kind)

    def place(name: str) -> tuple[bool, float]:
        try:
            with blame(name):
                return predicted(name)
        except BackendError:
            return True, math.inf

    def predicted(name: str) -> tuple[bool, float]:
        planner = host.planner(name)
        if planner is None:
            return True, math.inf
        target = Target((kind,), settled_dtype(host.info(name), kind, dtype, stored) or stored)
        rates = planner.rates(target, device)
        graph = accepted(build_graph(model, target.dtype, storages), planner, target)
        speed = Predictor(graph, device, rates).speed(model.max_position_embeddings, batch_tokens(kind))
        return not rates.has_run, math.inf if speed is None else speed.request_seconds

    return sorted(names, key=place)


def unknown_dtype(dtype: str) -> OptionError:
    """What to raise for a dtype that there is not."""
    near = did_you_mean(dtype.replace("fp", "float"), FLOATS).strip()
    return OptionError(f"unknown dtype {dtype!r}", expected=f"auto or one of {', '.join(FLOATS)}", hint=near or None)


def accelerators() -> tuple[str, ...]:
    """The kinds of device beside its CPU that this machine seems to have."""
    if platform.system() == "Darwin":
        return ("mps",) if platform.machine() == "arm64" else ()
    for library in DRIVERS:
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return ("cuda",)
    return ()


def first_kind(device: str) -> str:
    """The kind of the device that a name means, "auto" of what is tried first. Nothing is imported for it."""
    return (*accelerators(), "cpu")[0] if device == "auto" else device.partition(":")[0]


def _settle(
    host: PluginHost,
    name: str,
    device: str,
    dtype: str,
    stored: DType,
    deterministic: bool,
    reason: str,
    skipped: Sequence[str] = (),
) -> Choice:
    info = host.info(name)
    implementation = host.backend(name)
    try:
        devices = [d for d in implementation.devices() if d.partition(":")[0] in info.dtypes]
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {name!r} cannot name its devices: {type(error).__name__}: {error}") from error
    if not devices and device in ("auto", *info.dtypes):
        raise OptionError(
            f"backend {name!r} has no device on this machine",
            expected=f"{' or '.join(info.dtypes)}: {info.summary}",
            hint="Leave out --backend, and one is chosen that runs here",
        )
    wanted = [d for d in devices if device in ("auto", d, d.partition(":")[0])]
    if not wanted:
        raise OptionError(
            f"backend {name!r} has no device {device!r} here",
            expected=f"one of {', '.join(devices) or 'none'}",
            hint=_lacking(implementation, device, devices) or _for_other_kinds(host, info, device.partition(":")[0]),
        )
    kind = wanted[0].partition(":")[0]
    settled = settled_dtype(info, kind, dtype, stored)
    if settled is None:
        raise OptionError(
            f"backend {name!r} does not compute in {dtype} on {wanted[0]}",
            expected=f"one of {', '.join(info.dtypes[kind])}",
        )
    if deterministic:
        _check_deterministic(name, implementation, Target((wanted[0],), settled, deterministic=True))
    return Choice(name, wanted[0], settled, "; ".join([reason, *skipped]), tuple(skipped))


def _check_deterministic(name: str, implementation: Backend, target: Target) -> None:
    """BackendError with the reason when a backend cannot be deterministic on a target."""
    why_not: str | None = "it knows nothing of `Target.deterministic`"
    if isinstance(implementation, BackendBase):
        with blame(name):
            why_not = implementation.not_deterministic(target)
    if why_not is not None:
        raise BackendError(
            f"backend {name!r} cannot be deterministic: {why_not}",
            hint="Leave out --backend, and one is chosen that can, or do without --deterministic",
        )


def _lacking(implementation: Backend, device: str, devices: Sequence[str]) -> str | None:
    """What a backend says of a kind of device that it has none of."""
    kind = device.partition(":")[0]
    if not isinstance(implementation, BackendBase) or any(d.partition(":")[0] == kind for d in devices):
        return None
    reason = implementation.lacking(kind)
    return None if reason is None else f"Of {kind!r}: {reason}"


def _for_other_kinds(host: PluginHost, info: BackendInfo, kind: str) -> str | None:
    """Where to go with a kind of device that a backend does not run on anywhere."""
    if kind == "auto" or kind in info.dtypes:
        return None
    others = ", ".join(name for name, other in host.backends.items() if kind in other.dtypes)
    alone = f"It runs on {' and '.join(info.dtypes)} alone; backends for {kind!r}: {others or 'none'}"
    return f"{_nearest_kind(host, kind)}{alone}"


def _nearest_kind(host: PluginHost, device: str) -> str:
    """`Did you mean 'cuda'? `, for a kind of device that no backend knows; or nothing."""
    kind = device.partition(":")[0]
    known = {each for info in host.backends.values() for each in info.dtypes}
    if kind in known or not kind:
        return ""
    kind = "cuda" if kind == "gpu" else kind
    return did_you_mean(kind, (each for each in known if each[0] == kind[0].lower()))  # an npu is no cpu
