"""Every backend on every device of this machine, each in a child process that can be stopped."""

from __future__ import annotations

from collections.abc import Iterator

from ernie_rt.choice import accelerators
from ernie_rt.contract.findings import Finding
from ernie_rt.discovery import child
from ernie_rt.discovery.installed import Plugin, uninstall
from ernie_rt.discovery.requirements import lack, overwritten, reinstall, required
from ernie_rt.doctor.report import Backend
from ernie_rt.doctor.trial import Trial, Tried, unpack
from ernie_rt.errors import PluginError
from ernie_rt.hooks import BackendInfo

WRONG = "answers of it are not to be trusted"


def try_out(plugin: Plugin, info: BackendInfo, seconds: float) -> tuple[Backend, list[Finding]]:
    """What a backend does on each device of this machine, and what is to be said of it. On each it has so many seconds,
    the import of what it is made of included."""
    needs = lack(info)
    if needs is not None:
        return Backend(info.name, absence=needs), list(_not_installed(info, needs))
    tried: list[Tried] = []
    findings: list[Finding] = []
    waiting = [""]  # its first device, whatever that is
    while waiting:
        device = waiting.pop(0)
        try:
            about = (info.name, plugin.module, device)
            told, _ = child.call("ernie_rt.doctor.trial:run", *about, seconds=seconds, doing="running a small model")
            one = unpack(told)
        except PluginError as error:
            where = f" on {device}" if device else ""
            findings.append(_failure(plugin, info, f"{info.name}{where}: {error.what}", f"{info.name} cannot be used"))
            # What failed may have been a GPU.
            waiting += ["cpu"] if device == "" and accelerators() and "cpu" in info.dtypes else []
            continue
        tried.append(one)
        waiting += [each for each in one.devices if device == "" and each != one.device]
        findings += one.findings
        findings += _idle(one)
        for trial in one.trials:
            findings += _judge(plugin, info, one.device, trial)
    absence = "" if any(each.device for each in tried) or findings else f"no {' or '.join(info.dtypes)} device is here"
    return Backend(info.name, tuple(tried), absence), findings


def _not_installed(info: BackendInfo, needs: str) -> Iterator[Finding]:
    """Nothing is wrong with a machine that lacks a backend, unless it was made for what the machine has."""
    suited = info.dtypes.keys() & set(accelerators())
    if overwritten(info) is not None or not (suited or "cpu" in info.dtypes):
        return  # which is said of the packages
    costs = f"without it: {info.summary}"
    is_command = info.hint.startswith("pip ") and "(" not in info.hint
    command, advice = (info.hint, "") if is_command else ("", info.hint)
    yield Finding("slow" if suited else "remark", f"{info.name} {needs}", costs, command, advice)


def _idle(tried: Tried) -> Iterator[Finding]:
    """Devices that this machine seems to have, and the backend does not find."""
    for kind in accelerators():
        reason = tried.lacking.get(kind)
        if reason is not None and not tried.findings:
            yield Finding("slow", f"no {kind} device is used: {reason}", "what could run there runs on the CPU, or not")


def _judge(plugin: Plugin, info: BackendInfo, device: str, trial: Trial) -> Iterator[Finding]:
    if trial.executed is not None:
        yield from trial.executed.findings
    if trial.wrong:
        weights = "" if trial.storage == "plain" else f" with {trial.storage} weights"
        seen = f"{info.name} on {device} in {trial.dtype}{weights}: {trial.wrong}"
        yield _failure(plugin, info, seen, WRONG)


def _failure(plugin: Plugin, info: BackendInfo, seen: str, costs: str) -> Finding:
    """A stranger's backend is left to whoever wrote it; of a built-in one it is rather what it is made of."""
    advice = f"`ernie-rt conform {info.name}` says where it goes wrong"
    if not plugin.built_in:
        return Finding("broken", seen, costs, uninstall(plugin.distribution) or "", advice)
    made_of = required(info)
    return Finding("broken", seen, costs, reinstall(*made_of) if made_of else "", advice)
