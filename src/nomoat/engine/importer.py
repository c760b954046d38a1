"""Weights (and, if wanted, a LoRA adapter) -> a folder that OpenVINO runs, kept in the cache by content.

The folder: `openvino_model.xml/.bin`, `native.json` where nomoat runs the model itself, `tokenizer.json`, `tokenizer_config.json`,
`config.json`. It appears whole or not at all.
An adapter may be added to the weights before they are quantised ("baked"), see `import_with`.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat import __version__, cache, child_process, config, footprint, hardware, paths, system_errors, whole_files, words
from nomoat.engine import arch as architectures
from nomoat.engine import imported, layout, tensor_check
from nomoat.engine.imported import GRAPH, NATIVE, WEIGHTS, not_whole
from nomoat.engine.lora import MERGE, OUTPUT, LoraDelta
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.source import ModelSource, files_of, open_source
from nomoat.errors import (
    BadFileError,
    NotEnoughDiskError,
    NotEnoughMemoryError,
    NoThreadError,
    NotWritableError,
    UnsupportedError,
    WorkerError,
)
from nomoat.hub_folder import ADAPTER_WEIGHTS
from nomoat.progress import Progress
from nomoat.uncut import uncut

if TYPE_CHECKING:
    from nomoat.engine.graph import GraphBuilder

CHECKED = (NATIVE, "tokenizer.json", "tokenizer_config.json")
FACTS = {"digest", "sizes", "num_values", "storage", "files", "crc32"}  # what is asked of an imported model
ELSEWHERE_FROM_BYTES = 32_000_000  # of weights: less than that is not worth another process's start
IMPORT = """
import gc, json
from pathlib import Path
from nomoat import child_process
gc.disable()  # of a vocabulary it would look through a million objects again and again
from nomoat.engine import gguf_tokenizer, graph, importer
import gguf, tokenizers
path, adapter, told = json.loads(child_process.word())
importer.import_gguf(Path(path), adapter=adapter and Path(adapter), **told, progress=child_process.tell, here=True)
"""
Check = Callable[[architectures.Dimensions, int, int, bool, str | None], None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A model that is to be built: its weights, how they are stored, and what an adapter adds to them."""

    source: ModelSource
    sizes: architectures.Dimensions
    stored: layout.Storage
    delta: LoraDelta | None
    progress: Progress | None = None

    @property
    def num_bytes(self) -> int:
        """What its matrices take."""
        if self.delta is None or isinstance(self.source, ForeignFolder):
            return self.stored.bytes_of(self.source, self.sizes)
        names = tensor_check.layer_names(architectures.of(self.source), self.sizes) | {"output.weight": OUTPUT}
        changed = {tensor for tensor, layer in names.items() if layer in self.delta.layers}
        return self.stored.bytes_of(self.source, self.sizes, changed)


def remembered_sha256(path: Path) -> str:
    """The file's sha256, computed once: remembered under its path, size and times of change, one of them the system's own."""
    return _read_note(_note_of(path)) or cache.write_note(_note_of(path), paths.sha256_of(path))


def sha256_of_model(path: Path) -> str:
    """Of a model in one file that file's; of several, that of their names and digests."""
    files = files_of(path)
    if files == [path]:
        return remembered_sha256(path)
    return paths.sha256_of_texts(*(f"{file.name} {remembered_sha256(file)}" for file in files))


def _note_of(path: Path) -> Path:
    return cache.note_on("sha256", [path])


def _read_note(note: Path) -> str | None:
    return text if (text := cache.read_note(note)) and len(text) == 64 else None


def read_sizes(source: ModelSource, *, context_tokens: int | None = None) -> architectures.Dimensions:
    """The model's dimensions, which its tensors have. `context_tokens`: the context asked for; it matters to a model of LongRoPE."""
    if isinstance(source, ForeignFolder):
        return source.sizes
    arch = architectures.of(source)
    sizes = architectures.dimensions(
        source.metadata,
        vocabulary=source.tensor("token_embd.weight").shape[0],
        has_long_factors="rope_factors_long.weight" in source.tensors,
        context_tokens=context_tokens,
    )
    tensor_check.require_fitting(source, arch, sizes)
    return sizes


def planned(source: ModelSource) -> layout.Storage:
    """How a model's weights are stored here at the quality that is set."""
    return layout.storage(source, read_sizes(source), config.quality().value)


def import_gguf(
    path: Path, *, adapter: Path | None = None, context_tokens: int | None = None, quality: config.Quality | None = None,
    fused: bool = True, progress: Progress | None = None, check: Check | None = None, here: bool = False,
) -> Path:  # fmt: skip
    """The cache folder of this model as imported, made now if it is not there whole. `progress`: (layers done, layers).

    `path` is a GGUF file or a Hugging Face folder. What was imported in the same way before is found without opening it.
    `context_tokens`: the context asked for. One beyond the first of a model of LongRoPE makes another folder.
    `quality`: None for the setting. `fused`: see `layout.Storage`; False for a model that adapters shall be attached to.
    `check` is told (dimensions, number of weights, their bytes as they are served, whether some are in tiles, the family's name)
    before anything large is made, and may raise. `here`: in this process, whatever its size; see `_make_elsewhere`.

    Raises BadFileError, UnsupportedError, NotEnoughDiskError, NotEnoughMemoryError, NotWritableError, WorkerError, and what `check`
    and `progress` raise.
    """
    found = _import(
        path, adapter=adapter, context_tokens=context_tokens, quality=quality, fused=fused, progress=progress, check=check, here=here
    )  # fmt: skip
    assert found is not None
    return found


def _import(
    path: Path, *, adapter: Path | None = None, context_tokens: int | None = None, quality: config.Quality | None = None,
    fused: bool = True, progress: Progress | None = None, check: Check | None = None, if_tiled: bool = False, here: bool = False,
) -> Path | None:  # fmt: skip
    """`if_tiled`: None, and nothing made, for a model that would have no weights in tiles."""
    with child_process.Child(IMPORT, home=paths.home()) as child:
        delta, source = None if adapter is None else LoraDelta(adapter), None
        if not path.exists() or not all(_note_of(file).exists() for file in files_of(path)):
            source = _opened(path, None if here else child)
            _require_few_experts(source, read_sizes(source))  # what cannot be imported is refused before it is read for its digest
        quality = quality or config.quality().value
        origin = [sha256_of_model(path), delta.sha256 if delta else ""]
        rule = [imported.VERSION, str(footprint.has_native_kernels())]  # a home may be another machine's, too
        asked = paths.cache() / "asked" / paths.sha256_of_texts(__version__, *rule, *origin, quality, str(fused), str(context_tokens))
        known = _read_note(asked)
        facts = None if known is None else _facts_if_whole(_folder_of(known))
        if known is None or facts is None:
            source = source or _opened(path, None if here else child)
            sizes = read_sizes(source, context_tokens=context_tokens)
            stored = layout.storage(source, sizes, quality, fused=fused)
            if if_tiled and not stored.has_tiles:
                return None
            _require_few_experts(source, sizes, stored)
            plan = _Plan(source, sizes, stored, _fitted(delta, source, sizes), progress)
            if check:  # of free memory without the child's 40 MB, which the import needs as well
                family = str(source.require("general.architecture"))
                check(sizes, source.num_values, plan.num_bytes, stored.has_tiles, family)
            road = ["optimum-intel"] if isinstance(source, ForeignFolder) else []  # nomoat may know the architecture one day
            digest = paths.sha256_of_texts(stored.key(), *origin, *(["long"] if sizes.long_factors else []), *road)
            made_of = {"source": path.name, "source_sha256": origin[0], "adapter_sha256": origin[1]}
            if not (here or isinstance(source, ForeignFolder)) and plan.num_bytes >= ELSEWHERE_FROM_BYTES:
                told = {"context_tokens": context_tokens, "quality": quality, "fused": fused}
                _make_elsewhere(child, _folder_of(digest), json.dumps([str(path), adapter and str(adapter), told]), progress)
            _make(digest, plan, made_of)
            return _folder_of(cache.write_note(asked, digest))
        if check:
            has_tiles = layout.Storage.from_dict(facts["storage"]).has_tiles
            arch, sizes = family_of(_folder_of(known))
            check(sizes, facts["num_values"], facts["files"][WEIGHTS], has_tiles, arch.name if arch else None)
        folder = _folder_of(known)
        cache.use(folder)
        return folder


def _opened(path: Path, child: child_process.Child | None) -> ModelSource:
    """What is to be imported. A large file's child starts first: its imports take as long as what is asked here before its word."""
    if child is not None and path.is_file() and path.stat().st_size >= ELSEWHERE_FROM_BYTES:
        child.start()
    return open_source(path)


def forget(path: Path) -> int:
    """Remove what was imported of these weights, or with the adapter in this folder. Returns the bytes that got free.

    Raises NotWritableError, with all still there, where a program has some of it open and Windows therefore keeps it.
    """
    before = cache.size()
    with suppress(BadFileError, OSError):  # of what cannot be read nothing was imported
        digest = _known_digest(path)
        facts = {folder: _facts_of(folder) for folder in cache.folders(cache.IMPORTED)}
        doomed = [folder for folder, of in facts.items() if digest and digest in (of.get("source_sha256"), of.get("adapter_sha256"))]
        for folder in doomed:
            if (held := whole_files.held_in(folder)) is not None:
                raise NotWritableError(f"cannot remove `{folder}`: {held.strerror}", hint=system_errors.HELD_HINT) from held
        for folder in doomed:
            shutil.rmtree(folder, ignore_errors=True)
    cache.sweep()
    return before - cache.size()


def _known_digest(path: Path) -> str | None:
    """Of an adapter's weights; of a model's, if they were read before."""
    if (path / ADAPTER_WEIGHTS).exists():
        return LoraDelta(path).sha256
    return sha256_of_model(path) if all(_note_of(file).exists() for file in files_of(path)) else None


def import_with(
    path: Path, adapters: Sequence[Path], *, alone: bool, context_tokens: int | None = None, progress: Progress | None = None,
    check: Check | None = None,
) -> tuple[Path, Sequence[Path]]:  # fmt: skip
    """The folder of a model that is to answer with these adapters, and those that have to stand beside its weights.

    In passes of nomoat's own all of them do: that is as fast as baked, the weights stay their file's codes, and one import is enough.
    Elsewhere an adapter that is `alone`, without its base, is baked into the weights, and others stand beside layers that are apart.
    All else is as for `import_gguf`.
    """
    from nomoat.engine.native import Blueprint  # makes a folder for what is compiled: not before there is a model

    told: dict[str, Any] = {"context_tokens": context_tokens, "progress": progress, "check": check}
    if not adapters:
        return import_gguf(path, **told), adapters
    folder = _import(path, **told, if_tiled=True)
    if folder is not None:
        deltas, (arch, sizes) = read_adapters(folder, adapters), family_of(folder)
        if arch is not None and Blueprint(folder).can_run(deltas):
            _require_beside(arch, sizes, deltas)
            return folder, adapters
    if alone:
        return import_gguf(path, adapter=adapters[0], **told), ()
    require_beside(path, adapters, context_tokens=context_tokens)  # before a second import
    return import_gguf(path, fused=False, **told), adapters


def require_beside(path: Path, adapters: Sequence[Path], *, context_tokens: int | None = None) -> None:
    """Raises BadFileError or UnsupportedError for the first adapter that cannot stand beside the weights of `path`. Reads no weights
    but the adapters'."""
    source = open_source(path)
    if isinstance(source, ForeignFolder):
        raise UnsupportedError("this model is converted by optimum-intel, and adapters cannot stand beside that", hint=MERGE)
    arch, sizes = architectures.of(source), read_sizes(source, context_tokens=context_tokens)
    _require_beside(arch, sizes, [LoraDelta(adapter).of_model(arch, sizes) for adapter in adapters])


def _require_beside(arch: architectures.Architecture, sizes: architectures.Dimensions, deltas: Sequence[LoraDelta]) -> None:
    """Raises BadFileError or UnsupportedError for the first adapter that cannot stand beside the weights of such a model."""
    for delta in deltas:
        delta.require_standing_beside()
        for layer, shape in tensor_check.of_layers(arch, sizes):
            delta.require_fitting(layer, shape)
        delta.require_all_used(but=tensor_check.BETWEEN_LAYERS)


def read_adapters(folder: Path, adapters: Sequence[Path]) -> list[LoraDelta]:
    """Adapters for the model that was imported into this folder. Raises BadFileError."""
    if not adapters:
        return []
    arch, sizes = family_of(folder)
    deltas = [LoraDelta(adapter) for adapter in adapters]
    return [delta.of_model(arch, sizes) for delta in deltas] if arch else deltas


def family_of(folder: Path) -> tuple[architectures.Architecture | None, architectures.Dimensions]:
    """Of the model that was imported into this folder; no family for what optimum-intel converted. Raises BadFileError."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        arch, sizes = architectures.known().get(told["model_type"]), architectures.Dimensions(**told["nomoat"]["sizes"])
        return None if arch is None else architectures.with_experts(arch, sizes.experts), sizes
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as exc:
        raise not_whole(folder, exc) from exc


def _fitted(delta: LoraDelta | None, source: ModelSource, sizes: architectures.Dimensions) -> LoraDelta | None:
    """An adapter for a model that is to be built; one that optimum-intel converts has none."""
    if delta is None or isinstance(source, ForeignFolder):
        return delta
    return delta.of_model(architectures.of(source), sizes)


def _folder_of(digest: str) -> Path:
    return paths.cache() / cache.IMPORTED / digest[:24]


def _make(digest: str, plan: _Plan, origin: dict[str, str]) -> None:
    """Write the folder of that digest, if it is not there whole."""
    from nomoat.engine.native import write_native

    folder = _folder_of(digest)
    if _facts_if_whole(folder) is not None:
        return
    tokenizer = plan.source.read_tokenizer()
    with whole_files.alone(folder):
        if _facts_if_whole(folder) is not None:  # another process has made it meanwhile
            return
        _require_disk(folder, plan)
        with _whole_import(folder, plan) as part:
            _write_model(part, plan)
            write_native(part)
            tokenizer.save(part)
            facts = {
                "digest": digest, "layout": imported.VERSION, **origin,
                "sizes": asdict(plan.sizes), "num_values": plan.source.num_values, "storage": plan.stored.as_dict(),
                "pooling": plan.source.pooling,
                "notes": (*plan.source.notes, *architectures.notes(plan.source.metadata, plan.sizes)),
                "files": {written.name: written.stat().st_size for written in part.iterdir()},
                "crc32": {name: _crc32(part / name) for name in CHECKED if (part / name).exists()},
            }  # fmt: skip
            name = plan.source.metadata["general.architecture"]
            written_config: dict[str, Any] = {"model_type": name, "eos_token_id": tokenizer.special.eos_id, "nomoat": facts}
            (part / "config.json").write_text(json.dumps(written_config, ensure_ascii=False, indent=1), encoding="utf-8", newline="\n")
    _remove_older(origin["source_sha256"])
    cache.sweep()


@contextmanager
def _whole_import(folder: Path, plan: _Plan) -> Iterator[Path]:
    """A `whole_folder`. Where the disk gets full meanwhile, the error says what all of it needs, and has once the part is removed."""
    try:
        with whole_files.whole_folder(folder) as part:
            yield part
    except NotEnoughDiskError as error:
        _require_disk(folder, plan, error)
        raise


def _require_disk(folder: Path, plan: _Plan, cause: BaseException | None = None) -> None:
    what = f"the import of `{plan.source.path.name}`"
    system_errors.require_free_disk(folder, footprint.import_bytes(plan.num_bytes), cause, what=what)


def _make_elsewhere(child: child_process.Child, folder: Path, told: str, progress: Progress | None) -> None:
    """Let a child, of IMPORT, do what `_make` does: OpenVINO keeps about the weights' memory for as long as its process lives.

    `told`: what IMPORT reads. Where no such process can be had the folder is left to `_make`.
    Raises what `Child.run` raises, but for a process that ends badly after the folder is there whole.
    """
    if _facts_if_whole(folder) is not None:
        return
    try:
        child.run(told, progress=progress)
    except (NotEnoughMemoryError, NoThreadError, WorkerError):
        if _facts_if_whole(folder) is None:
            raise
    finally:
        whole_files.sweep_left(folder)


def _remove_older(source_sha256: str) -> None:
    """What an older nomoat imported of the same weights, with whatever adapter, which this one would not use. What a newer one did
    stays: where both use a home, each finds its own."""
    for folder in cache.folders(cache.IMPORTED):
        facts = _facts_of(folder)
        if facts.get("source_sha256") == source_sha256 and int(facts.get("layout", 0)) < int(imported.VERSION):
            shutil.rmtree(folder, ignore_errors=True)


def fits_exactly(path: Path) -> bool | None:
    """Whether likelihoods are computed in float32: see `footprint`; of large mixtures never.

    None for what optimum-intel converts: never, on no machine.
    """
    try:
        source = open_source(path)
    except UnsupportedError:  # converted where optimum-intel is installed
        return None
    if isinstance(source, ForeignFolder):
        return None
    return footprint.exact_bytes(source.num_values, read_sizes(source).experts) is not None


def exact_model(path: Path, *, adapter: Path | None = None, context_tokens: int | None = None) -> Any:
    """The weights of a file that can be imported (and what the adapter adds) in float32, as an OpenVINO model in memory.

    Raises NotEnoughMemoryError if that is not free now.
    """
    source = open_source(path)
    needed, free = footprint.EXACT_BYTES_PER_WEIGHT * source.num_values, hardware.memory_available_bytes()
    if needed > free.value:
        takes, there = words.two_gigabytes(needed, free.value)
        raise NotEnoughMemoryError(
            f"likelihoods of `{path.name}` are computed in float32, which takes about {takes} GB of memory, and {there} GB are free "
            f"({free.reason})",
            hint=f"take a smaller model (`nomoat models --fits`), or {hardware.more_memory(free, needed - free.value)}",
        )
    sizes = read_sizes(source, context_tokens=context_tokens)
    delta = _fitted(LoraDelta(adapter), source, sizes) if adapter else None
    return _builder(_Plan(source, sizes, layout.EXACT, delta)).build()


def _builder(plan: _Plan) -> GraphBuilder:
    with uncut():
        from nomoat.engine.fused import FusedBuilder
        from nomoat.engine.graph import GraphBuilder

    given = (plan.source, architectures.of(plan.source), plan.sizes, plan.stored)
    builder = FusedBuilder(*given, delta=plan.delta, progress=plan.progress)
    if builder.can_build():
        return builder
    _require_few_experts(plan.source, plan.sizes, plan.stored, in_tiles=False)
    return GraphBuilder(*given, delta=plan.delta, progress=plan.progress)


def _require_few_experts(
    source: ModelSource, sizes: architectures.Dimensions, stored: layout.Storage | None = None, *, in_tiles: bool = True
) -> None:
    """Raise UnsupportedError for a large mixture that nomoat's own products cannot run; OpenVINO's would compute all experts of each
    token. `in_tiles`: whether its matrices may still fit into tiles, as far as one knows.
    """
    if not footprint.is_large_mixture(source.num_values, sizes.experts):
        return
    has_kernels = footprint.has_native_kernels()
    if has_kernels and in_tiles and (stored is None or (stored.has_tiles and stored.fused)):
        return
    needed = "matrices whose rows are multiples of 16" if has_kernels else "a CPU with AVX2, FMA and F16C, or ARM's dotprod"
    is_apart = has_kernels and stored is not None and not stored.fused
    raise UnsupportedError(
        f"each token asks {sizes.experts_chosen} of the {sizes.experts} experts of `{source.path}`, and all of them would be computed",
        hint="load each adapter alone"
        if is_apart
        else f"it needs {needed}; or choose a model without experts: `nomoat models` lists some",
    )


def _facts_if_whole(folder: Path) -> dict[str, Any] | None:
    """What an imported model says of itself, if each file is there as long as it was written: a cache may lose files or their ends.

    What each start reads whole has its checksum, too; the weights and the graph are too long for that.
    """
    facts = _facts_of(folder)
    if not facts.keys() >= FACTS:
        return None
    with suppress(OSError):
        whole = all((folder / name).stat().st_size == size for name, size in facts["files"].items())
        whole = whole and all(_crc32(folder / name) == crc32 for name, crc32 in facts["crc32"].items())
        return facts if whole else None
    return None


def _crc32(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _facts_of(folder: Path) -> dict[str, Any]:
    """What an imported model says of itself, whether or not it is whole; nothing if that cannot be read."""
    try:
        facts: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nomoat"]
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_model(folder: Path, plan: _Plan) -> None:
    source, delta = plan.source, plan.delta
    if isinstance(source, ForeignFolder):
        if delta:
            raise UnsupportedError(
                f"`{source.path}` is converted by optimum-intel, and adapters cannot be baked into that", hint=MERGE
            )
        source.export(folder)
        return
    import openvino as ov

    builder = _builder(plan)
    try:
        model = builder.build()
    except (RuntimeError, IndexError, ValueError) as exc:  # OpenVINO's and numpy's word for shapes that do not go together
        raise BadFileError(
            f"`{source.path}` states sizes that its tensors do not have: {str(exc).strip().splitlines()[-1]}",
            hint="download it again, and compare its size",
        ) from exc
    if delta:
        delta.require_all_used()
    try:
        ov.save_model(model, str(folder / GRAPH), compress_to_fp16=False)
    except RuntimeError as exc:  # OpenVINO's, in its own words, also of a full disk
        if (error := system_errors.as_error(exc)) is not None:
            raise error from exc
        system_errors.require_free_disk(folder, footprint.SPARE_DISK_BYTES, exc)
        with (folder / WEIGHTS).open("ab") as file:  # the system's word, such as for a limit of files' length
            file.write(bytes(footprint.SPARE_DISK_BYTES))
        message = f"cannot write `{folder}`: {str(exc).strip().splitlines()[-1]}"
        raise NotWritableError(message, hint="check the disk of NOMOAT_HOME, or set that to another") from exc
