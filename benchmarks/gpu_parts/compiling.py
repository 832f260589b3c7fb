"""Kernels compiled by many processes at once, into Triton's cache, before anything waits for them."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from ernie_rt.graph.types import DType
from ernie_rt.modeling.config import ModelConfig
from ernie_rt_cudagraph.ahead_of_time import decode_launches
from ernie_rt_cudagraph.launch import Launch
from gpu_parts.card import Card
from gpu_parts.report import Report
from gpu_parts.weights import two_layers

PROCESSES = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """The kernels of steps of decodes of a model, of so many rows each."""

    config: ModelConfig
    rows: tuple[int, ...]
    dtype: DType
    pdl: bool


def compile_kernels(card: Card, report: Report, wanted: list[Wanted]) -> None:
    """Have the kernels compiled. Whatever is missing afterwards is compiled when it is first started."""
    began, processes = time.perf_counter(), min(PROCESSES, os.cpu_count() or 1)
    with report.attempt("compiling kernels ahead"):
        if card.dry:
            launches = sum(len(listed_launches(one)) for one in wanted)
            report.note(f"the kernels of {launches} launches would be compiled, by {processes} processes")
        elif not card.small:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
                shares = [pool.submit(compile_share, wanted, place, processes) for place in range(processes)]
                compiled = sum(share.result() for share in shares)
            report.note(f"{compiled} kernels compiled ahead in {time.perf_counter() - began:.1f} s")


def compile_share(wanted: list[Wanted], place: int, processes: int) -> int:
    """Compile every so manieth kernel, in a process of its own; how many that were."""
    torch.cuda.init()
    unlike: dict[str, Launch] = {}
    for one in wanted:
        for launch in listed_launches(one):
            unlike.setdefault(fingerprint(launch), launch)
    share = list(unlike.values())[place::processes]
    for launch in share:
        options = {"launch_pdl": True} if launch.arguments["PDL"] else {}
        launch.kernel.warmup(
            **launch.arguments,
            grid=launch.grid,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            **options,
        )
    return len(share)


def listed_launches(wanted: Wanted) -> list[Launch]:
    return [
        launch
        for rows in wanted.rows
        for greedy in (True, False)
        for launch in decode_launches(two_layers(wanted.config), wanted.dtype, rows, greedy=greedy, pdl=wanted.pdl)
    ]


def fingerprint(launch: Launch) -> str:
    """What tells launches of different kernels, shapes and options apart."""
    arguments = {
        name: (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value
        for name, value in launch.arguments.items()
    }
    return f"{launch.kernel.__name__} {arguments} {launch.num_warps} {launch.num_stages}"
