"""From what a person calls a model to the folder it lies in."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ernie_rt import files, writing
from ernie_rt.display import did_you_mean, human_bytes
from ernie_rt.errors import ErnieRtError, FileFormatError, InputError, ModelNotFoundError, OptionError, WriteError
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.checkpoint import INDEX, INDEX_LIMIT, SINGLE, numbered_shards
from ernie_rt.weights.hub_answers import COMMIT, judge_answers
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.strangers import cached_id, stranger_file, stranger_folder, stranger_repository

if TYPE_CHECKING:
    from ernie_rt.modeling.families import Family

DEMO: Final = Path(__file__).parents[1] / "demo"
DEMO_VL: Final = DEMO.with_name("demo-vl")
DEMOS: Final = {folder.name: folder for folder in (DEMO, DEMO_VL)}
"""The folders of the models that come with ernie-rt, by the names that they are known by."""

FILES: Final = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    MANIFEST,
)
"""What is fetched of a repository: no code and no pickles."""

HUB_ID: Final = re.compile(
    r"(?P<id>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})(@(?P<revision>(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,95}))?"
)


ADDRESS: Final = re.compile(r"https?://[^/]{1,200}/([A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96})")
"""A page or repository of the Hub, or of a mirror."""
UNWRITABLE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
    | {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
)
"""What a system says when a file cannot be written."""


def resolve(ref: str, *, fetch: bool = True) -> Path:
    """Return the folder of a model: a folder, a known name, or a Hugging Face id `org/name[@revision]`.

    Known are DEMOS and the families; a folder here outranks its name. A repository is fetched into the Hugging Face
    cache unless it is there whole; then the network is not touched. The usual variables hold (HF_ENDPOINT,
    HF_HUB_OFFLINE, HF_TOKEN, HF_HOME). Without `fetch` the cache alone is looked into. Raises ModelNotFoundError;
    ConfigError for a repository whose model cannot run, before its weights are fetched; FileFormatError or
    UnsafePathError for a cache that is damaged; WriteError.
    """
    from ernie_rt.modeling.families import FAMILIES, find

    try:
        path = Path(ref).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError):  # a name too long for a path; a home folder of nobody
        is_folder = is_file = False
    demo, family = DEMOS.get(ref.casefold()), find(ref)
    is_known = demo is not None or family is not None
    if ref and is_folder:
        if is_known:
            _check_outranking(path)
        elif not os.path.lexists(path / "config.json") and (found := stranger_folder(path)) is not None:
            raise ModelNotFoundError(f"this is {found.what}", where=str(path), hint=found.hint)
        return path
    if demo is not None:
        return demo
    if is_file and not is_known:
        found = stranger_file(path)
        raise ModelNotFoundError(f"this is {found.what}", where=ref, expected="a folder", hint=found.hint)
    if (address := ADDRESS.match(ref)) is not None:
        raise ModelNotFoundError("this is an address", where=ascii(ref[:200]), hint=f"Name it by its id: {address[1]}")
    match = HUB_ID.fullmatch(ref) or (None if family is None else HUB_ID.fullmatch(family.hub_id))
    if match is None:
        raise ModelNotFoundError(
            "no such model",
            where=ascii(ref[:200]),
            expected=f"a folder, {', '.join([*DEMOS, *(f.name for f in FAMILIES)])}, or a Hugging Face id org/name",
            found=files.dead_link(Path(ref)),
            hint=f"{_did_you_mean(ref)}Check the spelling of the path or name",
        )
    folder = _cached(match["id"], match["revision"])
    if folder is None and not fetch:
        raise ModelNotFoundError(
            "nothing is known of this model without its config.json, and nothing is downloaded for a plan",
            where=ref,
            hint="Name a model that `ernie-rt models` lists, or a folder with the config.json",
        )
    return folder or _download(match["id"], match["revision"])


def is_here(family: Family) -> bool:
    """Whether the name of a known model leads to a folder on this machine, so that `resolve` fetches nothing."""
    return Path(family.name).is_dir() or _cached(family.hub_id, None) is not None


def _did_you_mean(ref: str) -> str:
    from ernie_rt.modeling.families import FAMILIES

    return did_you_mean(ref, [*DEMOS, *(name for family in FAMILIES for name in (family.name, family.hub_id))])


def model_name(folder: Path) -> str:
    """What people call the model in a folder: its hub id, or the folder's name."""
    path = folder.resolve()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return cached_id(path.parent.parent.name)
    return path.name


def _check_outranking(folder: Path) -> None:
    """Whoever meant the known model is told what is in the way."""
    try:
        files.member(folder, "config.json")
    except InputError as error:
        raise ModelNotFoundError(
            "a folder of this name is here, outranks the known model, and holds none",
            where=str(folder),
            found=str(error),
            hint="Start from another folder to use the known model",
        ) from error


def _cached(repo: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, if it is whole."""
    hub, errors = _library()
    _check_reference(repo, revision or "main", Path(hub.constants.HF_HUB_CACHE))
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(FILES), local_files_only=True))
    except (
        errors.LocalEntryNotFoundError,
        errors.HFValidationError,
        OSError,
        RuntimeError,
    ):  # _download says what is wrong
        return None
    return folder if _whole(folder) else None


def _library() -> tuple[Any, Any]:
    """huggingface_hub and its errors; OptionError when it takes offence at its environment variables."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is imported
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors, snapshot_download  # noqa: F401  # which it imports when asked
    except ValueError as error:
        raise OptionError(
            "huggingface_hub cannot use one of its environment variables",
            found=str(error)[:200],
            hint="Correct or unset those that begin with HF_: HF_ENDPOINT, HF_HUB_ETAG_TIMEOUT, …",
        ) from error
    return huggingface_hub, errors


def _check_reference(repo: str, revision: str, cache: Path) -> None:
    """FileFormatError, or UnsafePathError, for a branch in the cache that leads to no commit: the library opens it
    whatever it is."""
    path = cache / f"models--{repo.replace('/', '--')}" / "refs" / revision
    if not os.path.lexists(path):
        return
    hint = "Remove it, and the model is looked up again"
    try:
        data = files.read_bytes(path, 100)
    except InputError as error:
        error.hint = hint
        raise
    if not COMMIT.fullmatch(data.decode("latin-1")):
        raise FileFormatError(
            "not the name of a commit",
            where=str(path),
            expected="40 hexadecimal digits",
            found=repr(data[:60]),
            hint=hint,
        )


def _whole(folder: Path) -> bool:
    """Whether config, tokenizer and weights are there; a snapshot may have been begun by anything."""
    try:
        files.member(folder, "config.json")
        has_model = os.path.lexists(folder / "tokenizer.model")
        files.member(folder, "tokenizer.model" if has_model else "tokenizer.json")
        if (folder / MANIFEST).exists():
            for shard in read_manifest(files.member(folder, MANIFEST)).shards:
                files.member(folder, shard)
            return True
        if (folder / SINGLE).exists():
            files.member(folder, SINGLE)
            return True
        shards = numbered_shards({entry.name for entry in folder.iterdir()})
        if (folder / INDEX).exists() or not shards:
            shards = set(files.read_json(files.member(folder, INDEX), limit=INDEX_LIMIT)["weight_map"].values())
        for shard in shards:
            files.member(folder, shard)
    except (InputError, KeyError, AttributeError, TypeError):
        return False
    return True


def _download(repo: str, revision: str | None) -> Path:
    """Fetch a repository: its config first, so that a model that cannot run is refused before its weights come.

    What will come is said on standard error, where the library shows its bars.
    """
    name = repo if revision is None else f"{repo}@{revision}"
    hub, _ = _library()
    if hub.constants.HF_HUB_CACHE.startswith("~"):  # which huggingface_hub would make a folder of, wherever it is
        raise WriteError(
            "this user has no home folder to fetch models into",
            where=name,
            found=f"cache {hub.constants.HF_HUB_CACHE}",
            hint="Set HF_HOME to the path of a folder with space, or give the path of a model's folder",
        )
    judge_answers(hub)
    with _named(name):
        first = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=["config.json"]))
        listing = hub.snapshot_download(repo, revision=revision, dry_run=True)
    names = [file.filename for file in listing]
    if not any(name.endswith(".safetensors") for name in names) or "config.json" not in names:
        found = stranger_repository(names)
        raise ModelNotFoundError(f"this is {found.what}", where=name, hint=found.hint)
    read_config(first)
    wanted = [file for file in listing if any(fnmatch(file.filename, pattern) for pattern in FILES)]
    needed, cache = sum(file.file_size or 0 for file in wanted if file.will_download), Path(hub.constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    writing.check_room(existing, needed, cache, "Set HF_HOME to a folder with more")
    sys.stderr.write(f"fetching {name}, {human_bytes(needed)}, into {cache}\n")
    with _named(name):
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What the library raises, as errors that name the model and the next step."""
    hub, errors = _library()
    constants = hub.constants
    try:
        yield
    except ErnieRtError:  # of an answer that was judged
        raise
    except errors.HFValidationError as error:
        raise ModelNotFoundError("neither a folder nor a valid Hugging Face id", where=name) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError("the repository has no such revision", where=name) from error
    except errors.GatedRepoError as error:
        hint = "Accept its terms on the Hub and set HF_TOKEN"
        raise ModelNotFoundError("access to the repository is restricted", where=name, hint=hint) from error
    except errors.RepositoryNotFoundError as error:
        near = _did_you_mean(name.partition("@")[0])
        hint = f"{near}Check the spelling; a private repository needs HF_TOKEN"
        raise ModelNotFoundError(
            f"neither a folder nor a repository on {constants.ENDPOINT}", where=name, hint=hint
        ) from error
    except Exception as error:  # the transport's own errors differ between versions of huggingface_hub
        if constants.HF_HUB_OFFLINE and isinstance(error, errors.LocalEntryNotFoundError):
            raise ModelNotFoundError(
                "neither a folder nor in the local cache, and HF_HUB_OFFLINE forbids fetching it",
                where=name,
                found=f"cache {constants.HF_HUB_CACHE}",
                hint="Unset HF_HUB_OFFLINE, or give the path of a folder",
            ) from error
        number = getattr(error, "errno", None)
        if number in UNWRITABLE:
            raise WriteError(
                "the cache cannot be written",
                where=str(constants.HF_HUB_CACHE),
                found=os.strerror(number),
                hint="Set HF_HOME to the path of a folder with space",
            ) from error
        raise ModelNotFoundError(
            f"neither a folder nor in the local cache, and {constants.ENDPOINT} could not be reached",
            where=name,
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            hint="Check the network, set HF_ENDPOINT to a mirror, or give the path of a folder",
        ) from error
