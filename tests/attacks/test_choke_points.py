"""What strangers could reach is reached in one place for each kind, and nobody goes around it.

The core, the backends and the plugins are read as text. What none of them may use at all, ruff refuses
(`banned-api` and flake8-bandit in pyproject.toml); here is what some modules may, each with its reason.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from support.uses import ROOT, all_uses, modules, uses


@dataclass(frozen=True, eq=False)
class Kind:
    """`names` are as `uses` gives them; one that ends in a dot stands for all below it. `bypasses` is code that a
    module which is not in `allowed` must not have, one that each line shows."""

    names: tuple[str, ...]
    bypasses: str
    allowed: Mapping[str, str]


OWN_DATA = "data of this distribution"
SYSTEM = "what the system says of itself: /proc, /sys"
METADATA = "metadata of distributions that are installed"
PROFILE = "what ONNX Runtime wrote of our own session"
CHILD = "between a process of ours and its child"
CLIENT = "the client that measures servers"

KINDS: Mapping[str, Kind] = {
    "code from text": Kind(
        ("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "builtins.breakpoint", "code."),
        "eval(text)\nrun = exec\ncompile(text, '', 'exec')\n__import__(name)\nimport code",
        {},
    ),
    "code by its name": Kind(
        ("importlib.import_module", "importlib.reload", "importlib.metadata.EntryPoint",
         "importlib.machinery.SourceFileLoader", "importlib.machinery.ExtensionFileLoader",
         "importlib.util.module_from_spec", "importlib.util.spec_from_file_location", "pkgutil.resolve_name", "imp."),
        "from importlib import import_module as load\nimport importlib as i; i.import_module(name)\n"
        "from importlib.util import spec_from_file_location\nimport pkgutil; pkgutil.resolve_name(name)\n"
        "from importlib.metadata import EntryPoint",
        {
            "ernie_rt/__init__.py": "its own names, from a table",
            "ernie_rt/vision/__init__.py": "its own names, from a table",
            "ernie_rt/discovery/announcement.py": "a plugin that is installed",
            "ernie_rt/discovery/child.py": "a plugin that is installed, in a child process",
            "ernie_rt/doctor/trial.py": "a plugin that is installed, in a child process",
            "ernie_rt/conformance/trial.py": "a plugin that is installed, in a child process",
            "ernie_rt/conformance/sampler.py": "what a backend announces",
            "ernie_rt/cli/lazy.py": "a command that is installed",
            "ernie_rt/export.py": "what a backend announces",
            "ernie_rt/host.py": "what a backend announces",
            "plugins/ernie_rt_bench/child.py": "its own names, from a table",
        },
    ),
    "libraries of machine code": Kind(
        ("ctypes.", "cffi.", ".register_custom_ops_library", ".load_library", "torch.ops.load_library",
         "torch.classes.load_library", "torch.utils.cpp_extension."),
        "from ctypes import CDLL\nimport ctypes as c\noptions.register_custom_ops_library(path)\n"
        "import torch; torch.ops.load_library(path)\nfrom cffi import FFI",
        {
            "ernie_rt/choice.py": "the driver of the system, for what it says of the GPU",
            "ernie_rt/contract/drivers.py": "the driver of the system, for what it says of the GPU",
            "ernie_rt/discovery/child.py": "the C library, to keep what a stranger's code starts",
            "ernie_rt/planning/machine.py": "the C library, for what it says of the processor",
            "backends/ernie_rt_onnx/cuda.py": "libraries that installed packages brought, by fixed names",
            "backends/ernie_rt_onnx/library.py": "the operators of this distribution",
            "backends/ernie_rt_onnx/executable.py": "the operators of this distribution",
        },
    ),
    "child processes": Kind(
        ("subprocess.", "asyncio.create_subprocess_exec", "asyncio.subprocess.", "os.fork", "os.forkpty", "os.execv",
         "os.execve", "os.execvp", "os.posix_spawn", "os.posix_spawnp", "os.spawnv", "os.startfile", "pty.",
         ".subprocess_exec", ".subprocess_shell"),
        "import subprocess\nfrom subprocess import run as r\nimport os; os.fork()\nfrom os import posix_spawn\n"
        "import asyncio; asyncio.create_subprocess_exec()\nimport pty",
        {
            "ernie_rt/worker.py": "starts all that decode, render and compile what a stranger made",
            "ernie_rt/discovery/child.py": "starts all that run a stranger's code",
            "ernie_rt/planning/gpus.py": "asks nvidia-smi, without arguments of anybody's",
            "backends/ernie_rt_cudagraph/ahead_of_time.py": "the assembler that Triton brings, on our own kernels",
            "plugins/ernie_rt_bench/process.py": "a contender, itself a process",
            "plugins/ernie_rt_bench/peers/llama.py": "the program that --llama-bench names",
            "plugins/ernie_rt_serve/bench/ceiling.py": "a server that answers at once, for the client's own limit",
        },
    ),
    "the network": Kind(
        ("socket.", "ssl.", "asyncio.open_connection", "asyncio.start_server", "asyncio.start_unix_server",
         ".create_connection", ".create_server", ".create_datagram_endpoint", "http.", "ftplib.", "smtplib.",
         "uvicorn.", "huggingface_hub.", "zmq.", "websockets.", "grpc.", "torch.distributed."),
        "import socket\nfrom asyncio import open_connection\nfrom http.server import HTTPServer\n"
        "import huggingface_hub as hub\nfrom huggingface_hub import hf_hub_download\nimport zmq\n"
        "loop.create_server(protocol)\nimport torch; torch.distributed.init_process_group()",
        {
            "ernie_rt/weights/hub.py": "the client of the hub",
            "plugins/ernie_rt_serve/running.py": "the server",
            "plugins/ernie_rt_serve/connection.py": "the server",
            "plugins/ernie_rt_serve/bench/connection.py": CLIENT,
            "plugins/ernie_rt_serve/bench/ceiling.py": "a server that answers at once, for the client's own limit",
        },
    ),
    "what writes files": Kind(
        ("builtins.open", "io.open", "io.FileIO", "codecs.open", "os.open", "os.truncate", ".open(a mode)",
         ".write_text", ".write_bytes", ".tofile", "numpy.save", "numpy.savez", "numpy.savez_compressed",
         "numpy.savetxt", "torch.save", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree",
         "shutil.move", "shutil.make_archive", "shutil.unpack_archive", "fileinput.", "sqlite3."),
        "open(path, 'w')\nfrom pathlib import Path; Path(path).open('w')\npath.write_text('')\npath.write_bytes(b'')\n"
        "import os; os.open(path, os.O_WRONLY)\nimport numpy as np; np.save(path, x)\narray.tofile(path)\n"
        "from shutil import copytree\nimport io; io.open(path)\npath.open(mode='w')",
        {
            "ernie_rt/writing.py": "the one writer",
            "ernie_rt/files.py": "opens for reading",
            "ernie_rt/temporary.py": "locks what is being written",
            "ernie_rt/cli/keyboard.py": "the terminal",
            "ernie_rt/cli/output.py": "/dev/null, in place of a stream that is closed",
            "ernie_rt/discovery/child.py": "/dev/null, in place of a stranger's output",
            "ernie_rt/doctor/folders.py": "reads past the cache of the system, to measure a disk",
            "ernie_rt/vision/film.py": "a video that its parent has checked, in a child that can write no file",
            "ernie_rt/conformance/judge.py": "opens a specimen, no file",
            "ernie_rt/conformance/models.py": "opens a specimen, no file",
            "ernie_rt/conformance/storage.py": "a parameter of this name",
            "ernie_rt/weights/opening.py": "a function of this name",
            "plugins/ernie_rt_serve/batch/answers.py": "appends line by line, and a kill loses none",
            "plugins/ernie_rt_serve/batch/requests.py": "a database in memory, of ids alone",
        },
    ),
    "what makes, moves and removes files": Kind(
        (".mkdir", ".touch", ".unlink", ".rmdir", ".rename", ".replace(a path)", ".symlink_to", ".hardlink_to",
         ".chmod", "os.mkdir", "os.makedirs", "os.remove", "os.unlink", "os.rmdir", "os.removedirs", "os.rename",
         "os.replace", "os.link", "os.symlink", "os.chmod", "os.chown", "os.mkfifo", "shutil.rmtree", "shutil.chown"),
        "path.mkdir()\npath.unlink()\nfrom shutil import rmtree\nimport os; os.rename(a, b)\npath.replace(target)\n"
        "from os import remove",
        {
            "ernie_rt/writing.py": "the one writer",
            "ernie_rt/temporary.py": "what was begun and did not get to its place, or was left by one that was killed",
            "ernie_rt/cli/keyboard.py": "the history of what is typed, for its owner alone",
            "ernie_rt/cli/store.py": "the folder of conversations, for its owner alone",
            "ernie_rt/runtime/row_store.py": "records of the prefix cache, by names that it made",
            "ernie_rt/weights/cache.py": "quantised weights, by names that it made",
            "ernie_rt/weights/folder.py": "files of a folder that is being written, by names that it made",
            "ernie_rt/weights/quantize.py": "files of a folder that is being written, by names that it made",
            "ernie_rt/weights/stamps.py": "remembered digests, by names that it made",
        },
    ),
    "what reads files": Kind(
        (".read_text", ".read_bytes", "mmap.mmap", "os.read", "numpy.fromregex", "linecache.", "configparser.",
         "tomllib.", "csv.reader", "csv.DictReader"),
        "path.read_text()\nfrom pathlib import Path; Path(path).read_bytes()\nimport mmap; mmap.mmap(3, 0)\n"
        "import tomllib",
        {
            "ernie_rt/files.py": "the one reader",
            "ernie_rt/weights/safetensors.py": "the type of what files.py has mapped",
            "ernie_rt/discovery/child.py": "the system's list of processes",
            "ernie_rt/cli/skeleton.py": OWN_DATA,
            "ernie_rt/conformance/cases.py": OWN_DATA,
            "ernie_rt/conformance/goldens.py": OWN_DATA,
            "ernie_rt/conformance/sampler.py": OWN_DATA,
            "ernie_rt/planning/device.py": OWN_DATA,
            "ernie_rt/planning/page.py": OWN_DATA,
            "ernie_rt/routing/page.py": OWN_DATA,
            "ernie_rt/vision/drawing.py": OWN_DATA,
            "plugins/ernie_rt_serve/page/__init__.py": OWN_DATA,
            "ernie_rt/cli/output.py": SYSTEM,
            "ernie_rt/conformance/report.py": SYSTEM,
            "ernie_rt/contract/memory.py": SYSTEM,
            "ernie_rt/doctor/machine.py": SYSTEM,
            "ernie_rt/planning/machine.py": SYSTEM,
            "plugins/ernie_rt_bench/others.py": SYSTEM,
            "ernie_rt/discovery/installed.py": METADATA,
            "ernie_rt/discovery/requirements.py": METADATA,
            "backends/ernie_rt_onnx/examine.py": PROFILE,
            "backends/ernie_rt_onnx/profile.py": PROFILE,
            "ernie_rt/doctor/folders.py": "memory for what is read to measure a disk",
        },
    ),
    "temporary files": Kind(
        ("tempfile.",),
        "import tempfile\nfrom tempfile import TemporaryDirectory as T",
        {
            "ernie_rt/writing.py": "where there is no place for one, it says what helps",
            "ernie_rt/doctor/folders.py": "tries whether there is a place for one",
        },
    ),
    "JSON": Kind(
        ("json.load", "json.loads", "json.JSONDecoder", "json.decoder.", "json.scanner.", "orjson.", "ujson."),
        "import json; json.loads(data)\nfrom json import load as l\nimport json as j; read = j.loads\nimport orjson",
        {
            "ernie_rt/untrusted_json.py": "JSON of strangers",
            "ernie_rt/text/tool_calls.py": "finds where a value ends; untrusted_json.py says what it is",
            "ernie_rt/conformance/cases.py": OWN_DATA,
            "ernie_rt/conformance/goldens.py": OWN_DATA,
            "ernie_rt/conformance/sampler.py": OWN_DATA,
            "ernie_rt/planning/device.py": OWN_DATA,
            "backends/ernie_rt_onnx/examine.py": PROFILE,
            "backends/ernie_rt_onnx/profile.py": PROFILE,
            "ernie_rt/text/foreign.py": "what this module has just written",
            "ernie_rt/text/jinja_worker.py": "a child, of what its parent asks",
            "ernie_rt/vision/decoder.py": "a child, of what its parent asks",
            "plugins/ernie_rt_serve/grammar_trial.py": "a child, of what its parent asks",
            "ernie_rt/discovery/child.py": "what a plugin answers, whose shape it checks",
            "plugins/ernie_rt_bench/child.py": CHILD,
            "plugins/ernie_rt_bench/process.py": CHILD,
            "plugins/ernie_rt_bench/peers/llama.py": "what llama-bench prints",
        },
    ),
    "JSON into Structs": Kind(
        ("msgspec.json.decode", "msgspec.json.Decoder", "msgspec.msgpack.", "msgspec.yaml.", "msgspec.toml."),
        "import msgspec; msgspec.json.decode(data)\nfrom msgspec.json import Decoder\n"
        "import msgspec as m; m.json.Decoder(T)",
        {"plugins/ernie_rt_serve/structs.py": "catches what msgspec does not make its own error"},
    ),
    "templates": Kind(
        ("jinja2.", "string.Template", "mako."),
        "import jinja2\nfrom jinja2.sandbox import SandboxedEnvironment",
        {"ernie_rt/text/jinja_worker.py": "the child process with limits"},
    ),
    "tokenizers": Kind(
        ("sentencepiece.", "tokenizers.", "tiktoken."),
        "import sentencepiece as spm\nfrom tokenizers import Tokenizer\n"
        "import tokenizers; tokenizers.Tokenizer.from_file(f)",
        {
            "ernie_rt/text/sentencepiece_model.py": "reads the file itself first",
            "ernie_rt/text/tokenizer_json.py": "gets a vocabulary that was checked, no file",
        },
    ),
    "pictures and videos": Kind(
        ("av.", "cv2.", "imageio.", "torchvision.", "torchcodec.", "PIL.ImageFile.", "PIL.GifImagePlugin.",
         "PIL.JpegImagePlugin.", "PIL.PngImagePlugin.", "PIL.WebPImagePlugin."),
        "import av\nfrom av import open as o\nimport cv2\nfrom PIL.PngImagePlugin import PngImageFile",
        {
            "ernie_rt/vision/decoder.py": "the child process with limits",
            "ernie_rt/vision/film.py": "the child process with limits",
        },
    ),
    "ONNX models": Kind(
        ("onnxruntime.InferenceSession", "onnxruntime.capi.", ".ParseFromString", ".MergeFromString",
         "onnx.ModelProto.FromString", "google.protobuf.json_format.",
         "google.protobuf.text_format.", "onnx.parser.", "onnx.compose.", "onnx.hub."),
        "from onnxruntime import InferenceSession\nimport onnxruntime as ort; ort.InferenceSession(path)\n"
        "model.ParseFromString(data)\nimport onnx; onnx.ModelProto.FromString(data)\nfrom onnx import parser; parser.x",
        {
            "backends/ernie_rt_onnx/static.py": "parses a model that somebody gave, and looks at all of it",
            "backends/ernie_rt_onnx/provider.py": "sessions of graphs that this process made",
            "backends/ernie_rt_onnx/executable.py": "the type of a session",
            "backends/ernie_rt_onnx/examine.py": "the type of a session",
            "backends/ernie_rt_onnx/numbers.py": "a graph that was rebuilt and compared, in a child process",
        },
    ),
    "grammars": Kind(
        ("llguidance.", "xgrammar.", "outlines.", "lark."),
        "import llguidance\nfrom llguidance import LLMatcher",
        {
            "plugins/ernie_rt_serve/grammar_trial.py": "the child process with limits",
            "plugins/ernie_rt_serve/grammars.py": "a grammar that the child has compiled",
            "plugins/ernie_rt_serve/structured.py": "turns an expression into a grammar, which the child compiles",
        },
    ),
    "patterns that are not written where they are used": Kind(
        ("re(a pattern)", "regex."),
        "import re; re.compile(text)\nimport re; re.search(f'{text}', other)\nimport regex",
        {
            "ernie_rt/cli/doctor.py": "names of its own commands",
            "ernie_rt/discovery/announcement.py": "constants of this module",
            "ernie_rt/temporary.py": "a file's own name, escaped",
            "ernie_rt/hooks.py": "a constant of this module",
            "ernie_rt/planning/seeing.py": "constants of this module",
            "ernie_rt/text/finding.py": "one class of letters, escaped",
            "ernie_rt/text/foreign.py": "a number that it drew itself",
            "ernie_rt/text/parsers.py": "constants of this module",
            "ernie_rt/text/sentencepiece_model.py": "a constant",
            "ernie_rt/text/tokenizer.py": "one of two kinds of spaces",
            "ernie_rt/text/vocabulary.py": "a constant",
            "ernie_rt/vision/formats.py": "constants of this module",
            "ernie_rt/weights/recipes.py": "constants of this module",
            "ernie_rt/weights/strangers.py": "constants of this module",
            "backends/ernie_rt_onnx/static.py": "a constant of this module",
        },
    ),
    "order and secrets by chance": Kind(
        ("random.", "builtins.hash", "uuid.uuid3", "uuid.uuid5", "time.clock"),
        "import random\nfrom random import choice\nhash(text)\nimport uuid; uuid.uuid3(a, b)",
        {
            f"plugins/ernie_rt_serve/bench/{name}.py": f"{CLIENT}: prompts and times of a seed"
            for name in ("figures", "load", "prompts", "run")
        },
    ),
    "models by others' code": Kind(
        ("transformers.", "diffusers.", "peft.", "optimum.", "vllm.", "onnxruntime_genai.", "lm_eval."),
        "from transformers import AutoConfig\nimport transformers as t; t.AutoModel",
        {
            "plugins/ernie_rt_bench/peers/transformers.py": "is what is measured, when --vs names it",
            "plugins/ernie_rt_bench/peers/genai.py": "is what is measured, when --vs names it",
            "plugins/ernie_rt_lm_eval/command.py": "is the command's purpose",
            "plugins/ernie_rt_lm_eval/model.py": "is the command's purpose",
        },
    ),
    "asserts that check more than a type": Kind(
        ("assert",),
        "assert size < limit\nassert isinstance(x, int) and x > 0\nassert name in known, name",
        {
            "ernie_rt/conformance/storage.py": "what the graph and the plan of storages say is made of one thing",
            "ernie_rt/planning/seeing.py": "a sum of what was just divided",
            "ernie_rt/runtime/engine.py": "an engine that would wait for ever",
            "ernie_rt/runtime/pages.py": "a page that is given back twice",
            "ernie_rt/sampling/draws.py": "arrays that the engine made",
            "ernie_rt/vision/item.py": "pixels in the size that was asked for",
            "ernie_rt/vision/positions.py": "places that intake.py has checked",
            "ernie_rt/weights/folder.py": "a weight that its own storage has written",
            "backends/ernie_rt_cudagraph/ahead_of_time.py": "what the assembler says, read by who develops kernels",
        },
    ),
}  # fmt: skip


HARMLESS = """
import importlib.metadata, json, os, re
from importlib.metadata import version
from pathlib import Path
re.compile("a")
json.dumps(1)
assert x is not None and isinstance(x, int)
"a".replace("b", "c")
model.open(folder)
"""


@cache
def kinds_of(name: str) -> frozenset[str]:
    """The kinds that a name belongs to: by itself, or by what stands before one of its dots."""
    dots = [at for at, letter in enumerate(f"{name}.", 1) if letter == "."]
    spelt = {name, *(f"{name}."[:dot] for dot in dots)}
    return frozenset(what for what, kind in KINDS.items() if not spelt.isdisjoint(kind.names))


@cache
def found() -> Mapping[str, Mapping[str, list[int]]]:
    """Of each kind the modules that use it, and where."""
    places: dict[str, dict[str, list[int]]] = {what: {} for what in KINDS}
    for module, used in all_uses().items():
        for line, name in used:
            for what in kinds_of(name):
                places[what].setdefault(module, []).append(line)
    return places


@pytest.mark.parametrize("what", KINDS)
def test_nobody_goes_around(what: str) -> None:
    bypasses = {place: lines for place, lines in found()[what].items() if place not in KINDS[what].allowed}
    assert not bypasses, f"{what}: move it to {', '.join(KINDS[what].allowed) or 'nowhere'}, or say here why it may"


@pytest.mark.parametrize("what", KINDS)
def test_who_may_does(what: str) -> None:
    """What is allowed and not used any more is allowed no more."""
    assert KINDS[what].allowed.keys() == found()[what].keys() & KINDS[what].allowed.keys()
    assert all(KINDS[what].allowed.values())


@pytest.mark.parametrize("what", KINDS)
def test_each_bypass_is_seen(what: str) -> None:
    for line in KINDS[what].bypasses.splitlines():
        assert any(what in kinds_of(name) for _, name in uses(f"def f():\n    {line}\n")), line
    assert not any(what in kinds_of(name) for _, name in uses(HARMLESS))


def test_no_interpreter_is_started_that_imports_from_the_folder_it_runs_in() -> None:
    """That folder may be a stranger's model, with a torch.py in it."""
    started = [line for path in modules() for line in re.findall(r"sys\.executable, .*", path.read_text("utf-8"))]
    interpreters = [line for line in started if line.startswith('sys.executable, "-')]
    assert len(interpreters) >= 3 and all(line.startswith('sys.executable, "-P"') for line in interpreters)


BANNED = """\
import pickle
from torch import load
import numpy as np; np.load(path, allow_pickle=True)
import torch; torch.load(path)
import marshal
import shelve
import dill
import yaml
from yaml import load
import requests
import urllib.request
import httpx
import tarfile
import zipfile
import multiprocessing
import os; os.system(command)
import subprocess; subprocess.run(command, shell=True)
import onnx; onnx.load(path)
from onnx import save
from PIL import Image; Image.open(path)
from jinja2 import Environment
import safetensors.torch
eval(text)
exec(text)
import hashlib; hashlib.md5(data)
import tempfile; tempfile.mktemp()
host = "0.0.0.0"
"""


@pytest.mark.skipif(shutil.which("ruff", path=Path(sys.executable).parent) is None, reason="ruff is not installed")
@pytest.mark.parametrize("folder", ["ernie_rt/text", "backends/ernie_rt_onnx", "plugins/ernie_rt_serve"])
def test_ruff_refuses_what_nobody_may_use(folder: str) -> None:
    command = [Path(sys.executable).with_name("ruff"), "check", "--output-format", "concise", "--stdin-filename"]
    planted = [f"def f{number}():\n    {line}\n" for number, line in enumerate(BANNED.splitlines())]
    ran = subprocess.run(
        [*command, f"{folder}/planted.py", "-"], input="\n\n".join(planted), cwd=ROOT, capture_output=True, text=True
    )
    refused = {int(line.split(":")[1]) for line in ran.stdout.splitlines() if " S" in line or " TID251" in line}
    assert refused == {4 * number + 2 for number in range(len(planted))}, ran.stdout
