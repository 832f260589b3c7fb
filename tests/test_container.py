"""Dockerfile, .dockerignore and compose.yaml: what they promise, and their steps as far as no daemon is needed."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.dockerfile import Stage, ignored, parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
VARIANTS = ("cpu", "cuda")


@pytest.fixture(params=VARIANTS)
def stages(request: pytest.FixtureRequest) -> list[Stage]:
    return parse(TEXT, VARIANT=request.param)


def tracked() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def environment(stage: Stage) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(each.text for each in stage.all("ENV"))))


def test_the_variants_differ_in_extras_and_base() -> None:
    names = {variant: [stage.name for stage in parse(TEXT, VARIANT=variant)] for variant in VARIANTS}
    for variant, found in names.items():
        other = ({*VARIANTS} - {variant}).pop()
        assert f"{variant}-extras" in found and f"{variant}-base" in found and not [n for n in found if other in n]
    assert [stage.name for stage in parse(TEXT)] == names["cpu"]
    extras = set(re.findall(r"EXTRAS=([\w,]+)", TEXT))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert len(extras) == 2 and all({*each.split(",")} <= known.keys() for each in extras)


def test_it_runs_as_nobody_in_particular(stages: list[Stage]) -> None:
    final = stages[-1]
    assert [each.text for each in final.all("USER")] == ["10001:10001"], "a number, which clusters can check"
    before = final.instructions[: final.instructions.index(final.all("USER")[0])]
    made = " ".join(each.text for each in before if each.word == "RUN")
    assert "useradd --uid 10001 --gid 10001" in made and "groupadd --gid 10001" in made
    entry, command = final.all("ENTRYPOINT")[-1], final.all("CMD")[-1]
    assert entry.is_exec and entry.arguments == ["ernie-rt"] and command.is_exec, "no shell keeps signals for itself"


def test_what_it_writes_is_in_volumes_and_tmp(stages: list[Stage]) -> None:
    """So the root may be read-only."""
    final = stages[-1]
    assert final.all("VOLUME")[0].arguments == ["/models", "/cache"]
    (made,) = re.findall(r"install --directory --owner 10001 --group 10001 --mode 0700 (\S+)", str(final.all("RUN")))
    assert made == "/cache"
    found = environment(final)
    paths = {name: value for name, value in found.items() if value.startswith("/") and name not in ("PATH",)}
    assert {"HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME", "TRITON_CACHE_DIR"} <= paths.keys()
    assert all(Path(value).is_relative_to("/cache") or value == "/tmp" for value in paths.values()), paths
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"


def test_little_is_left_in_the_image(stages: list[Stage]) -> None:
    final = stages[-1]
    copied = final.all("COPY")
    assert [(each.flags, each.arguments) for each in copied] == [
        ({"from": "packages"}, ["/opt/ernie-rt", "/opt/ernie-rt"])
    ]
    for stage in stages:
        for run in stage.all("RUN"):
            assert "-m pip" not in run.text or "--no-cache-dir" in run.text
            assert "apt-get install" not in run.text or "rm -rf /var/lib/apt/lists/*" in run.text
            pinned = "--constraint constraints.txt" in run.text or "--no-deps" in run.text
            assert "-m pip" not in run.text or pinned
            assert "curl" not in run.text and "sudo" not in run.text
    words = [each.text for stage in stages for each in stage.instructions if each.word in ("ARG", "ENV")]
    assert not [text for text in words if re.search(r"KEY|SECRET|TOKEN|PASSWORD", text)], "nothing secret in layers"
    assert not [stage for stage in stages if stage.all("ADD")]


def test_what_is_copied_is_there_and_nothing_else_is_sent(stages: list[Stage]) -> None:
    sources = [
        source
        for stage in stages
        for copy in stage.all("COPY")
        if "from" not in copy.flags
        for source in copy.arguments[:-1]
    ]
    files = tracked()
    sent = [path for path in files if not ignored(path, IGNORED)]
    for source in sources:
        mine = [path for path in files if path == source or path.startswith(f"{source}/")]
        assert mine and {*mine} <= {*sent}, f"{source} is not in the repository, or is left out"
    assert {path.partition("/")[0] for path in sent} == {*sources}
    for path in (".git/config", "api_keys.txt", "models/x/model.safetensors", ".venv/bin/python", "tests/conftest.py"):
        assert ignored(path, IGNORED)
    for path in ("ernie_rt/__pycache__/x.pyc", "backends/ernie_rt_onnx/_ops.cpython-311.so", "ernie_rt.egg-info/PKG"):
        assert ignored(path, IGNORED)


def test_the_example_for_compose() -> None:
    for name, variant in (("cpu", "cpu"), ("gpu", "cuda")):
        service = COMPOSE["services"][name]
        assert service["profiles"] == [name] and service["image"] == f"ernie-rt:{variant}"
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
        assert service["mem_limit"] == "${MEMORY:-0}" and service["pids_limit"] > 0
        volumes = [mount.split(":") for mount in service["volumes"]]
        assert [mount[1] for mount in volumes] == parse(TEXT)[-1].all("VOLUME")[0].arguments
        assert volumes[0][2:] == ["ro"] and volumes[1][0] in COMPOSE["volumes"]
        assert service["ports"] == ["127.0.0.1:8000:8000"], "other machines come through a proxy"
        (secret,) = service["secrets"]
        assert secret in COMPOSE["secrets"] and f"/run/secrets/{secret}" in service["command"]
        assert not service.get("environment") and not service.get("privileged")
        assert int(service["stop_grace_period"].removesuffix("s")) >= 30 + 5, "as long as draining may take, and more"
    assert COMPOSE["services"]["gpu"]["build"]["args"] == {"VARIANT": "cuda"}
    (device,) = COMPOSE["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.fixture
def answering() -> Iterator[list[int]]:
    """A server at the image's port, with the status that it answers; skips where the port is taken."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
    except OSError:
        pytest.skip("port 8000 is taken")
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield status
        server.shutdown()
        thread.join()


def healthy(environment: dict[str, str]) -> int:
    check = parse(TEXT)[-1].all("HEALTHCHECK")[0].text.partition("CMD ")[2]
    _, *arguments = yaml.safe_load(check)
    return subprocess.run([sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL).returncode


def test_the_health_check(answering: list[int]) -> None:
    proxied = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    assert healthy(proxied) == 0, "no proxy comes between"
    answering[0] = 503
    assert healthy(proxied) == 1


def test_the_health_check_of_a_server_that_is_gone() -> None:
    if healthy(dict(os.environ)) == 0:
        pytest.skip("another server is at port 8000")
    assert healthy(dict(os.environ)) == 1


@pytest.mark.long
def test_its_steps_make_a_server_that_ends_when_it_is_told(tmp_path: Path) -> None:
    """All but those that need root in an image: apt-get and useradd. Needs a registry of packages."""
    tree = tmp_path / "source"
    stages = parse(TEXT)
    for path in tracked():
        if not ignored(path, IGNORED):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tree / path)
    builder = tmp_path / "builder"
    venv.create(builder, with_pip=True)
    moved = {"/source": str(tree), "/wheels": str(tmp_path / "wheels"), "/opt/ernie-rt": str(tmp_path / "ernie-rt")}

    def here(text: str) -> str:
        return re.sub("|".join(moved), lambda found: moved[found[0]], text)

    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "ERNIE_RT_PLUGINS")}
    found = outside | {"PATH": f"{builder / 'bin'}:{os.environ['PATH']}"}
    for stage in stages[:-1]:
        for each in stage.instructions:
            if each.word == "ARG" and "=" in each.text:
                found |= [each.text.split("=", 1)]
            if each.word == "RUN" and not each.text.startswith("apt-get"):
                step = ["sh", "-ec", here(each.text)]
                done = subprocess.run(step, cwd=tree, env=found, capture_output=True, text=True)
                assert done.returncode == 0, f"{each.text}\n{done.stdout}{done.stderr}"

    cache, scratch = tmp_path / "cache", tmp_path / "tmp"
    moved |= {"/cache": str(cache), "/tmp": str(scratch)}
    for folder in (cache, scratch):
        folder.mkdir()
    image = {k: here(v).replace("$PATH", os.environ["PATH"]) for k, v in environment(stages[-1]).items()}
    before = {path: path.stat().st_mtime for path in tmp_path.rglob("*")}
    (program,) = stages[-1].all("ENTRYPOINT")[-1].arguments
    start = [program, "serve", "demo"]
    with subprocess.Popen(start, env=outside | image, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        try:
            for _ in range(120):
                if healthy(dict(os.environ)) == 0:
                    break
                assert server.poll() is None, server.stderr and server.stderr.read()
                time.sleep(0.5)
            else:
                pytest.fail("it never gets ready")
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
            now = {path: path.stat().st_mtime for path in tmp_path.rglob("*")}
            written = {path for path, time in now.items() if before.get(path) != time}
            assert all(path.is_relative_to(cache) or path.is_relative_to(scratch) for path in written), "a root to read"
        finally:
            server.kill()
