"""Kernels compiled for GPUs that are not there: what they take, and whether loads are wide.

`python -m ernie_rt_cudagraph.ahead_of_time` prints a table of all kernels of a step at the real shapes of models.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ernie_rt.build import build
from ernie_rt.contract import Interpreter, Target
from ernie_rt.display import columns
from ernie_rt.graph.types import DType
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.writing import temporary_folder, write_atomic
from ernie_rt_cudagraph.backend import PROGRAMMATIC, CudaGraphBackend
from ernie_rt_cudagraph.blocks import functions
from ernie_rt_cudagraph.blocks.head import HeadOutput
from ernie_rt_cudagraph.executable import SAID, position_columns
from ernie_rt_cudagraph.inputs import DecodeInputs
from ernie_rt_cudagraph.launch import Launch, listed
from ernie_rt_cudagraph.sampling import draw
from ernie_rt_eager.attention import LayerCache
from ernie_rt_eager.backend import empty_weight
from ernie_rt_eager.ops import DTYPES, FUNCTIONS

META: Final = torch.device("meta")
MODELS: Final = ("0.3B", "21B-A3B", "300B-A47B", "VL-28B-A3B")
ROWS: Final = (1, 4, 8, 32, 128)
CAPABILITIES: Final = ((8, 0), (9, 0), (12, 0))
POINTERS: Final = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.float64: "*fp64",
    torch.int32: "*i32", torch.int64: "*i64", torch.bool: "*i1",
}  # fmt: skip
WIDE_LOAD: Final = re.compile(r"ld\.global\S*\.(v4\.b32|v2\.b64)|cp\.async\.cg\.shared\.global.*, 0x10, ")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel for one kind of GPU: registers of a thread, bytes that it spills, shared memory of a block in bytes."""

    kernel: str
    capability: str
    warps: int
    registers: int
    spilled: int
    shared: int
    wide_loads: int
    """Instructions that load 16 bytes."""
    made_for: str
    """The constants that it was compiled for."""


def decode_launches(config: ModelConfig, dtype: DType, rows: int, *, greedy: bool, pdl: bool) -> list[Launch]:
    """The kernels of a step of decodes, one layer of each kind, none of which is started."""
    layers = 1 if config.moe is None else config.moe.moe_layer_start_index + 1
    config = replace(config, num_hidden_layers=min(config.num_hidden_layers, layers))
    lowering = build(config, CudaGraphBackend(), Target(("cuda:0",), dtype)).lowering
    bindings = {"P": config.max_position_embeddings, "R": 1 << 16, "S": rows}
    inputs = DecodeInputs(rows, rows, META, columns=position_columns(lowering))
    states = {}
    for state in lowering.graph.states:
        cache_rows, _, heads, size = state.type.shape(bindings)
        k, v = (torch.empty(cache_rows, heads, size, dtype=DTYPES[dtype], device=META) for _ in range(2))
        states[state.name] = LayerCache(k, v)
    weights = {weight.name: empty_weight(weight, bindings, META) for weight in lowering.graph.weights}
    tables = torch.zeros(rows + 1, config.max_position_embeddings // 16, dtype=torch.int32, device=META)
    decodes = inputs.decodes(rows, tables, 16)
    given = dict.fromkeys(SAID) | {
        "ids": inputs.ids(rows, torch.zeros(rows + 1, dtype=torch.int32, device=META)),
        "positions": inputs.positions(rows),
        "context": decodes,
        "rows": torch.arange(rows, dtype=torch.int32, device=META),
    }
    draws = inputs.draws(rows)
    output = HeadOutput(known=draws.known if greedy else None)
    with listed() as launches:
        blocks = functions(inputs.live, output, pdl=pdl)
        interpreter = Interpreter(lowering, {**FUNCTIONS, **blocks}, weights, states)
        outputs, _ = interpreter.run(given, {"N": rows, "L": rows})
        draw(outputs["logits"], draws, greedy=greedy, largest=output.largest, pdl=pdl)
    return launches


def source_of(launch: Launch) -> ASTSource:
    """The launch as the compiler reads it: pointers are aligned to 16 bytes, as PyTorch's are."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for place, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        special = type(value) is int and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (special and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = _type(value)
        if isinstance(value, Tensor) or (special and value % 16 == 0):
            attributes[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def compile_for(launch: Launch, capability: tuple[int, int]) -> Compiled:
    """Compile a kernel for a kind of GPU, and read what the assembler says of it."""
    number = capability[0] * 10 + capability[1]
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    if launch.arguments.get("PDL"):
        options["launch_pdl"] = True
    found = triton.compile(source_of(launch), target=GPUTarget("cuda", number, 32), options=options)
    said = _assembled(found.asm["ptx"], number)
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert registers and spilled, said
    return Compiled(
        launch.kernel.__name__,
        f"sm_{number}",
        launch.num_warps,
        int(registers[1]),
        int(spilled[1]) + int(spilled[2]),
        found.metadata.shared,
        len(WIDE_LOAD.findall(found.asm["ptx"])),
        " ".join(f"{name}={value}" for name, value in launch.arguments.items() if name.isupper()),
    )


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """Of launches that are compiled alike the first."""
    found: dict[str, Launch] = {}
    for launch in launches:
        found.setdefault(f"{source_of(launch).hash()} {launch.num_warps} {launch.num_stages}", launch)
    return list(found.values())


def step_launches(models: Iterable[str], dtype: DType, rows: Iterable[int], *, pdl: bool) -> list[Launch]:
    """All distinct kernels of steps of decodes of published models, greedy or not."""
    configs = [family.config for name in models if (family := find(name)) is not None]
    return distinct(
        launch
        for config in configs
        for count in rows
        for greedy in (True, False)
        for launch in decode_launches(config, dtype, count, greedy=greedy, pdl=pdl)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="may be given again; all when not given")
    parser.add_argument("--rows", type=int, action="append", help="sequences of a step; may be given again")
    parser.add_argument("--sm", type=int, action="append", help="80, 90 or 120; all when not given")
    parser.add_argument("--pdl", action="store_true", help="with programmatic dependent launch, from 90 on")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    capabilities = [divmod(number, 10) for number in given.sm] if given.sm else CAPABILITIES
    compiled = [
        compile_for(launch, capability)
        for capability in capabilities
        for launch in step_launches(
            given.model or MODELS, "bfloat16", given.rows or ROWS, pdl=given.pdl and capability >= PROGRAMMATIC
        )
    ]
    if given.json:
        print(json.dumps([asdict(each) for each in compiled]))
        return
    names = [field.name for field in fields(Compiled)]
    print(columns([names, *([str(getattr(each, name)) for name in names] for each in compiled)]))


def _type(value: object) -> str:
    if isinstance(value, Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    assert isinstance(value, int), f"{value!r} is no argument of a kernel"
    return "i32" if -(1 << 31) <= value < 1 << 31 else "i64"


def _assembled(ptx: str, number: int) -> str:
    """What the assembler that comes with Triton says of a kernel's resources."""
    programs = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    program = programs / ("ptxas-blackwell" if number >= 100 else "ptxas")
    suffix = "a" if number >= 90 else ""
    with temporary_folder() as folder:
        source = Path(folder) / "kernel.ptx"
        with write_atomic(source) as file:
            file.write(ptx.encode())
        command = [str(program), "-v", f"--gpu-name=sm_{number}{suffix}", str(source), "-o", f"{folder}/kernel.cubin"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


if __name__ == "__main__":
    main()
