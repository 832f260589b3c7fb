"""`ernie-rt lm-eval`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ernie_rt.cli import options as opt
from ernie_rt.writing import temporary_folder, write_atomic


def lm_eval(
    model: opt.Ref,
    tasks: Annotated[
        list[str], typer.Option("--task", "-t", help="A task of the harness; may be given several times.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT=FILE", help="A local file in the place of a split of the task's dataset; may be repeated."
        ),
    ] = None,
    include: Annotated[Path | None, typer.Option(help="A folder of further tasks, as YAML.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples in front of each question.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many questions of each task.")] = None,
    chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask as in a conversation, by the model's template.")
    ] = False,
    max_sequences: Annotated[int, typer.Option(min=1, help="How many requests run at once.")] = 8,
    max_context: opt.MaxContext = None,
    weights: opt.Quantize = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = None,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Run tasks of lm-evaluation-harness on a model.

    The harness loads a task's data from the hub, unless --data names a file of the same form. --json prints all that
    the harness says, without its record of single questions.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    from ernie_rt.cli.loaded import loaded, quantized
    from ernie_rt.cli.output import parse_size, write
    from ernie_rt.errors import OptionError
    from ernie_rt.location import locate
    from ernie_rt_lm_eval.model import ErnieRtLM

    manager = TaskManager(include_path=None if include is None else str(include))
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise OptionError(
            "the harness has no such task", found=", ".join(unknown), hint="`lm-eval ls tasks` lists them all"
        )
    located = locate(model)
    source = quantized(located, weights, threads, backend=backend, device=device, dtype=dtype)
    with _specified(tasks, data or [], manager) as specs, loaded(
        located, backend=backend, device=device, dtype=dtype, threads=threads, memory=memory, weights=source,
        max_context=None if max_context is None else parse_size(max_context), max_sequences=max_sequences,
        verbose=verbose, quiet=quiet,
    ) as ready:  # fmt: skip
        results = simple_evaluate(
            model=ErnieRtLM(ready), tasks=specs, num_fewshot=shots, limit=limit, apply_chat_template=chat_template,
            task_manager=manager, log_samples=False, bootstrap_iters=0,
        )  # fmt: skip
    assert results is not None
    write(json.dumps(results, default=str) + "\n" if as_json else make_table(results) + "\n")


@contextmanager
def _specified(tasks: list[str], data: list[str], manager: Any) -> Iterator[list[str]]:
    """Tasks as the harness takes them: by name or, with local files for their data, as YAML that includes theirs."""
    from ernie_rt.errors import OptionError

    pairs = [each.partition("=") for each in data]
    for split, _, file in pairs:
        if not split or not Path(file).is_file():
            raise OptionError(
                "--data is not possible", expected="SPLIT=FILE, of a file that is there", found=file or split
            )
    if not pairs:
        yield tasks
        return
    given = {"data_files": {split: str(Path(file).resolve()) for split, _, file in pairs}}
    with temporary_folder() as folder:
        specs = []
        for task in tasks:
            home = manager.task_index[task].yaml_path
            if home is None:
                raise OptionError("--data is for tasks that are YAML", found=task)
            specs.append(Path(folder) / f"{task}.yaml")
            # JSON is YAML.
            with write_atomic(specs[-1]) as spec:
                spec.write(json.dumps({"include": str(home), "task": task, "dataset_kwargs": given}).encode())
        yield list(map(str, specs))
