"""GGUF file (and, if wanted, a LoRA adapter) -> a folder that OpenVINO runs, kept in the cache by content.

The folder: `openvino_model.xml/.bin`, `tokenizer.json`, `tokenizer_config.json`, `config.json`. It appears whole or not at all.
An adapter is added to the weights before they are quantised ("baked"): the tuned model runs at the base's full speed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nomoat import config, hardware, paths
from nomoat.engine import arch as architectures
from nomoat.engine import layout, shapes, tokenizer
from nomoat.engine.gguf import FloatArray, GGUFFile
from nomoat.errors import BadFileError, NotEnoughDiskError, NotWritableError

if TYPE_CHECKING:
    from nomoat.engine.graph import GraphBuilder

SPARE_DISK_BYTES = 32_000_000  # the graph, the tokenizer, and room to breathe
Progress = Callable[[int, int], None]


class LoraDelta:
    """What a PEFT LoRA folder adds to each layer's rows: `scale * B @ A`.

    Shapes: R rank, I input, O output; A_RI, B_OR. Raises BadFileError for what is not a LoRA of plain linear layers.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        self.weights_path = folder / "adapter_model.safetensors"
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            tensors = load_file(self.weights_path)
        except (OSError, json.JSONDecodeError, SafetensorError) as exc:
            raise BadFileError(f"`{folder}` is not a whole adapter folder: {exc}", hint="tune it again with `nomoat tune`") from exc
        if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
            raise BadFileError(f"`{folder}` is a `{config.get('peft_type')}` adapter of a kind nomoat cannot add to weights")
        rank = config["r"]
        self._scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
        self._pairs: dict[str, tuple[FloatArray, FloatArray]] = {}
        for name, a_RI in tensors.items():
            if name.endswith(".lora_A.weight"):
                layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                b_OR = tensors[name.replace(".lora_A.", ".lora_B.")]
                self._pairs[layer] = (a_RI.astype(np.float32), b_OR.astype(np.float32))
        self._unused = set(self._pairs)
        if not self._pairs:
            raise BadFileError(f"`{self.weights_path}` holds no LoRA matrices", hint="tune it again with `nomoat tune`")

    def matrices(self, layer: str) -> tuple[FloatArray, FloatArray] | None:
        """A and B of a layer, or None."""
        self._unused.discard(layer)
        return self._pairs.get(layer)

    def __call__(self, layer: str, rows: npt.NDArray[np.intp]) -> FloatArray | None:
        found = self.matrices(layer)
        if found is None:
            return None
        a_RI, b_OR = found
        return np.asarray(b_OR[rows] @ a_RI * self._scale, np.float32)

    @property
    def layers(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """A_RI and scale * B_OR of each layer that is changed."""
        return {layer: (a_RI, b_OR * np.float32(self._scale)) for layer, (a_RI, b_OR) in self._pairs.items()}

    def require_all_used(self) -> None:
        """Raises BadFileError if the model that was built has no layer for some of these matrices."""
        if self._unused:
            raise BadFileError(
                f"`{self.weights_path}` changes layers this model does not have: {', '.join(sorted(self._unused)[:3])}",
                hint="an adapter fits only the architecture it was tuned on",
            )


def remembered_sha256(path: Path) -> str:
    """The file's sha256, computed once: remembered under its path, size and time of change."""
    stat = path.stat()
    key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    note = paths.cache() / "sha256" / hashlib.sha256(key.encode()).hexdigest()
    if note.exists() and len(text := note.read_text()) == 64:
        return text
    digest = paths.sha256_of(path)
    with suppress(NotEnoughDiskError, NotWritableError), paths.whole_file(note) as part:  # a note saves time, nothing else
        part.write_text(digest)
    return digest


def read_sizes(file: GGUFFile, *, context_tokens: int | None = None) -> architectures.Dimensions:
    """The model's dimensions, which its tensors have. `context_tokens`: the context asked for; it matters to a model of LongRoPE."""
    arch = architectures.find(str(file.require("general.architecture")))
    sizes = architectures.dimensions(
        file.metadata,
        vocabulary=file.tensor("token_embd.weight").shape[0],
        has_long_factors="rope_factors_long.weight" in file.tensors,
        context_tokens=context_tokens,
    )
    shapes.require_fitting(file, arch, sizes)
    return sizes


def planned(file: GGUFFile) -> tuple[layout.Storage, layout.Layout]:
    """How a file's weights are stored here at the quality that is set, and computed with."""
    sizes = read_sizes(file)
    stored = layout.storage(file, sizes, layout.as_quality(config.quality().value))
    return stored, layout.choose(sizes, stored, threads=config.threads())


def import_gguf(
    path: Path, *, adapter: Path | None = None, context_tokens: int | None = None, quality: layout.Quality | None = None,
    fused: bool = True, progress: Progress | None = None,
) -> Path:  # fmt: skip
    """The cache folder of this file's imported model, made now if it is not there whole. `progress`: (layers done, layers).

    `context_tokens`: the context asked for. One beyond the first of a model of LongRoPE makes another folder.
    `quality`: None for the setting. `fused`: see `layout.Storage`; False for a model that adapters shall be attached to.

    Raises BadFileError, UnsupportedError, NotEnoughDiskError, NotWritableError.
    """
    from nomoat.engine.graph import GraphBuilder

    file = GGUFFile(path)
    arch = architectures.find(str(file.require("general.architecture")))
    delta = None if adapter is None else LoraDelta(adapter)
    sizes = read_sizes(file, context_tokens=context_tokens)
    source_sha256 = remembered_sha256(path)
    stored = layout.storage(file, sizes, quality or layout.as_quality(config.quality().value), fused=fused)
    parts = [stored.key(), source_sha256, paths.sha256_of(delta.weights_path) if delta else ""]
    parts += ["long"] if sizes.long_factors else []
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = paths.cache() / "imported" / digest[:24]
    if _is_whole(folder):
        return folder
    words = tokenizer.from_metadata(file.metadata)
    with paths.alone(folder):
        if _is_whole(folder):  # another process has made it meanwhile
            return folder
        paths.require_free_disk(folder, stored.bytes_of(file) + SPARE_DISK_BYTES)
        with paths.whole_folder(folder) as part:
            _write_model(part, GraphBuilder(file, arch, sizes, stored, delta=delta, progress=progress), delta)
            words.save(part)
            files = {written.name: written.stat().st_size for written in part.iterdir()}
            facts = {
                "digest": digest, "source": path.name, "source_sha256": source_sha256, "sizes": asdict(sizes),
                "storage": stored.as_dict(), "files": files,
            }  # fmt: skip
            written_config: dict[str, Any] = {"model_type": arch.name, "eos_token_id": words.special.eos_id, "nomoat": facts}
            (part / "config.json").write_text(json.dumps(written_config, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder


def fits_exactly(path: Path) -> bool:
    """Whether the file's weights in float32, once in the model and once as compiled, take no more than half of all memory.

    Of all, not of what is free: the same machine is to give the same likelihoods every day.
    """
    return 2 * 4 * GGUFFile(path).num_values <= hardware.memory_total_bytes().value / 2


def exact_model(path: Path, *, adapter: Path | None = None, context_tokens: int | None = None) -> Any:
    """The weights of a file that can be imported (and what the adapter adds) in float32, as an OpenVINO model in memory."""
    from nomoat.engine.graph import GraphBuilder

    file = GGUFFile(path)
    arch = architectures.find(str(file.require("general.architecture")))
    sizes = read_sizes(file, context_tokens=context_tokens)
    return GraphBuilder(file, arch, sizes, layout.EXACT, delta=LoraDelta(adapter) if adapter else None).build()


def _is_whole(folder: Path) -> bool:
    """Whether every file of an imported model is there with the size it was written with: a cache may lose files or their ends."""
    try:
        files = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nomoat"]["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_model(folder: Path, builder: GraphBuilder, delta: LoraDelta | None) -> None:
    import openvino as ov

    try:
        model = builder.build()
    except (RuntimeError, IndexError, ValueError) as exc:  # OpenVINO's and numpy's word for shapes that do not go together
        raise BadFileError(
            f"`{builder.file.path}` states sizes that its tensors do not have: {str(exc).strip().splitlines()[-1]}",
            hint="download it again, and compare its size",
        ) from exc
    if delta:
        delta.require_all_used()
    try:
        ov.save_model(model, str(folder / "openvino_model.xml"), compress_to_fp16=False)
    except RuntimeError as exc:  # OpenVINO reports a full disk as a RuntimeError of its own wording
        paths.require_free_disk(folder, SPARE_DISK_BYTES, exc)
        raise
