"""What `models`, `show` and `pull` say of a model, in the same words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat import __version__, cache, config, footprint, hardware, paths
from nomoat.catalog import licences, memory, prices, pull
from nomoat.errors import NomoatError
from nomoat.records import ModelCard, Source

if TYPE_CHECKING:
    from nomoat.engine.source import ModelSource


def parameters(count: int | None) -> str:
    """A number of parameters as people write it; empty if it was never told."""
    if count is None:
        return ""
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def runs_here(architecture: str | None) -> bool:
    """Whether our engine knows an architecture."""
    from nomoat.engine.arch import known

    return architecture in known()


def can_run(source: ModelSource) -> bool:
    """Whether an opened model runs here, if only by optimum-intel."""
    from nomoat.engine.optimum import ForeignFolder

    return isinstance(source, ForeignFolder) or runs_here(architecture_of(source))


def card_facts(card: ModelCard, need: memory.MemoryNeed | None) -> dict[str, Any]:
    """A card with all that is computed for it here, as plain data. `need`: its `card_need`."""
    return _row(card, licences.chain(card), need, pull.find_installed(card.id))


def card_need(card: ModelCard, context_tokens: int | None) -> memory.MemoryNeed | None:
    """What `serve` and `run` count of a model that is here and runs here: of its file. Of others, what the card foretells."""
    path = pull.find_installed(card.id)
    if path is not None and runs_here(card.architecture):
        with suppress(NomoatError, OSError):  # a damaged file, or one that goes meanwhile
            return memory.need_at(_remembered_sizes(path, context_tokens), context_tokens)
    return memory.memory_need(card, context_tokens)


def pulled_facts(model: pull.Installed, context_tokens: int | None) -> dict[str, Any]:
    """The same of a pulled model that no card describes: what it says of itself, or in `notes` why it cannot be read."""
    from nomoat.engine.source import open_source

    origin = Source(url=model.ref, file_name=model.path.name, size_bytes=model.size_bytes)
    card = ModelCard(id=model.ref, title=model.path.name, developer="", released="", licence="unknown", sources=(origin,))
    need, runs = None, False
    try:
        source = open_source(model.path)
        (need, longest), runs = file_need(source, context_tokens), can_run(source)
        card = replace(card, parameters=source.num_values, architecture=architecture_of(source), context_tokens=longest)
    except (NomoatError, OSError) as exc:  # OSError: another user's file, or one that goes meanwhile
        why = exc.message if isinstance(exc, NomoatError) else f"`{model.path}` cannot be read: {exc.strerror or exc}"
        card = replace(card, notes=why)
    return _row(card, licences.chain(None), need, model.path) | {"runs_here": runs}


def adapter_facts(folder: Path, models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of a tuned adapter, whose `kind` is "adapter", with its base, its bytes and when it was made. Its memory is its base's,
    if that is one of these `models`. Of one that was made elsewhere nothing but its bytes may be known; `notes` say why it cannot be
    read, as far as its header tells.
    """
    from nomoat import references
    from nomoat.catalog import tuned
    from nomoat.engine.lora import LoraDelta

    base, made, notes, chain = "", None, "", licences.chain(None)
    try:
        provenance = tuned.provenance_of(folder)
        base, made = tuned.base_of(provenance), provenance.get("made")
        chain = references.adapter_chain(base, folder)
        LoraDelta(folder, header_only=True)
    except NomoatError as exc:
        notes = exc.message
    beside = next((row for row in models if row["id"] == base), None)
    card = ModelCard(
        id=f"{base or 'BASE'}+{folder.name}", title=folder.name, developer="", released="", licence="unknown", notes=notes,
        architecture=beside["architecture"] if beside else None, context_tokens=beside["context_tokens"] if beside else None,
    )  # fmt: skip
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    about = {"kind": "adapter", "memory": beside["memory"] if beside and not notes else None, "base": base or None}
    return _row(card, chain, None, folder) | about | {"size_bytes": size_bytes, "made": made}


def _row(card: ModelCard, verdict: licences.ChainVerdict, need: memory.MemoryNeed | None, path: Path | None) -> dict[str, Any]:
    return {
        "id": card.id,
        "title": card.title,
        "kind": card.kind,
        "developer": card.developer,
        "released": card.released,
        "parameters": card.parameters,
        "architecture": card.architecture,
        "context_tokens": card.context_tokens,
        "template": card.template,
        "api": card.api,
        "sources": card.sources,
        "notes": card.notes,
        "licence": licences.as_dict(verdict),
        "memory": None if need is None else memory_facts(need),
        "runs_here": card.kind == "open" and runs_here(card.architecture),
        "price": prices.price(card.api) if card.api else None,
        "pulled": None if path is None else str(path),
    }


def architecture_of(source: ModelSource) -> str:
    """What an opened model says it is."""
    return str(source.metadata.get("general.architecture", "unknown"))


def file_need(source: ModelSource, context_tokens: int | None) -> tuple[memory.MemoryNeed, int | None]:
    """The memory an opened model takes, and its longest context where it says it. Raises BadFileError, UnsupportedError."""
    sizes, said = _sizes_of(source, context_tokens), source.metadata.get(f"{architecture_of(source)}.context_length")
    longest = max(said, sizes.context_tokens or 0) if isinstance(said, int) else sizes.context_tokens  # YaRN's is longer than said
    return memory.need_at(sizes, context_tokens), longest


def _remembered_sizes(path: Path, context_tokens: int | None) -> memory.ModelSizes:
    """As `_sizes_of` a GGUF file, which is opened once: its sizes are noted, as it is stored here. Raises BadFileError,
    UnsupportedError."""
    from nomoat.engine.imported import VERSION

    parts = [path.with_name(name) for name in paths.split_names(path.name)]
    how = (VERSION, config.quality().value, footprint.has_native_kernels(), context_tokens or config.context_tokens())
    note = cache.note_on("sizes", parts, __version__, *map(str, how))
    with suppress(ValueError, TypeError):  # not there, or damaged
        return memory.ModelSizes(**json.loads(cache.read_note(note) or ""))
    from nomoat.engine.source import open_source

    sizes = _sizes_of(open_source(path), context_tokens)
    cache.write_note(note, json.dumps(asdict(sizes)))
    return sizes


def _sizes_of(source: ModelSource, context_tokens: int | None) -> memory.ModelSizes:
    """As `run` and `serve` count them; of what does not run here, as far as it says. Raises BadFileError, UnsupportedError."""
    from nomoat.responder import model_sizes

    if can_run(source):
        return model_sizes(source, context_tokens)
    architecture = architecture_of(source)

    def said(name: str) -> int | None:
        value = source.metadata.get(f"{architecture}.{name}")
        return int(value) if isinstance(value, int) else None

    heads, width = said("attention.head_count"), said("embedding_length")
    return memory.ModelSizes(
        parameters=source.num_values,
        layers=said("block_count"),
        kv_heads=said("attention.head_count_kv") or heads,
        head_dim=said("attention.key_length") or (width // heads if width and heads else None),
        architecture=architecture,
        experts=said("expert_count") or 0,
        context_tokens=said("context_length"),
    )


def memory_facts(need: memory.MemoryNeed) -> dict[str, Any]:
    """A need with its verdict, as plain data. All of it is an estimate."""
    verdict = memory.fit(need)
    return {
        "total_bytes": need.total_bytes,
        "weights_bytes": need.weights_bytes,
        "kv_cache_bytes": need.kv_cache_bytes,
        "most_cache_bytes": need.most_cache_bytes,
        "scoring_bytes": need.scoring_bytes,
        "scoring_token_bytes": need.scoring_token_bytes,
        "overhead_bytes": need.overhead_bytes,
        "context_tokens": need.context_tokens,
        "note": need.note,
        "fits": verdict.value,
        "reason": verdict.reason,
    }


def memory_line(need: memory.MemoryNeed) -> str:
    """A need and whether it fits, in one line."""
    verdict = memory.fit(need)
    return f"{verdict.value}; {need}; {verdict.reason}"


def cache_line(need: memory.MemoryNeed) -> str:
    """What longer texts and more of them take."""
    return f"memory for longer texts and many at once: a KV cache of up to {need.most_cache_bytes / 1e9:.2f} GB, where that is free"


def scoring_line(need: memory.MemoryNeed) -> str:
    """What choosing among answers takes besides."""
    more = f"{need.scoring_bytes / 1e9:.2f} GB more" if need.scoring_bytes else "no more, the weights are read where they are"
    questions = f"{1000 * need.scoring_token_bytes / 1e9:.2f} GB for each 1,000 tokens of the longest question"
    return f"memory to choose among answers by their likelihood: {more}; and {questions}"


def adapter_place(ref: str) -> Path | None:
    """Where the adapter in `BASE+NAME` lies or would lie; None for what names none."""
    from nomoat import references
    from nomoat.textfiles import as_named

    name = references.parted(ref)[1]
    if "+" not in ref or not name or Path(name).name != name or name in (".", ".."):
        return None
    return as_named(paths.adapters() / name)


def layout_facts(path: Path) -> dict[str, Any]:
    """How the engine stores a file's weights at the quality that is set, and computes with them."""
    from nomoat.engine import importer, layout, step_tables
    from nomoat.engine.source import open_source

    source = open_source(path)
    stored = importer.planned(source)
    sizes, architecture = importer.read_sizes(source), architecture_of(source)
    kv_sizes = footprint.foretold_kv_sizes(architecture, sizes.head_dim, keeps_codes=stored.has_tiles, quality=stored.quality)
    if kv_sizes is None:
        chosen = asdict(layout.choose(sizes, stored, threads=config.threads()))
    else:
        told, has_experts = layout.chunk_told(stored, architecture), bool(sizes.experts)
        chunk = told or step_tables.chunk_of(sizes.width, has_experts=has_experts)
        chosen = _native_facts(kv_sizes, chunk, has_experts=has_experts)
    return {**stored.as_dict(), "is": str(stored), "bytes": stored.bytes_of(source, sizes), **chosen}


def _native_facts(kv_sizes: tuple[int, int], chunk: int, *, has_experts: bool) -> dict[str, Any]:
    """How nomoat's own passes compute, as `Layout` says it of OpenVINO.

    `kv_sizes`: see `footprint.kv_sizes`. `chunk`: see `step_tables.chunk_of`. `has_experts`: the model.
    """
    from nomoat.engine import step_tables

    threads, keys_and_values = config.threads(), " and ".join(f"i{8 * size}" for size in kv_sizes)
    detected = {
        "engine": hardware.Detected("native", "nomoat's own passes; OpenVINO has no part in them"),
        "threads": hardware.Detected(str(threads.value), threads.reason),
        "inputs": hardware.Detected("8 bits", "with a scale for each 32"),
        "kv_cache": hardware.Detected(keys_and_values, "of keys and values, with a scale for each head of a token"),
    }
    many = f"where {step_tables.panels_from(chunk)} tokens or more are read at once"
    prompts = hardware.Detected("codes", "the form of answers")
    if step_tables.BY_AMX and chunk != step_tables.AMX_CHUNK:
        broken = "8 bits would break the bound of this quality, width or family"
        why = "8 bits were measured of no mixture of experts" if has_experts else broken
        prompts = hardware.Detected("bf16", f"by AMX, {many}: {why}")
    elif step_tables.HAS_PANELS:
        by = "AMX" if step_tables.BY_AMX else "dotprod" if hardware.has_dotprod() else "VNNI"
        rest = f"; gate and up of the last {step_tables.LAST_LAYERS} layers in bf16" if step_tables.BY_AMX else ""
        how = f"weights are rounded to 8 bits, with a scale a row for each {chunk} columns{rest}"
        prompts = hardware.Detected("int8", f"by {by}, {many}: {how}")
    properties, reasons = ({name: getattr(one, of) for name, one in detected.items()} for of in ("value", "reason"))
    return {"properties": properties, "reasons": reasons, "prompts": asdict(prompts)}


def layout_lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    computed = ", ".join(f"{name.lower()} {value} ({facts['reasons'][name]})" for name, value in facts["properties"].items())
    lines = [
        f"layout: {facts['is']}, {paths.shown_size(facts['bytes'])} (quality {facts['quality']}: {facts['reason']})",
        f"computed with: {computed}",
    ]
    return [*lines, f"prompts: {prompts['value']} ({prompts['reason']})"] if (prompts := facts.get("prompts")) else lines
