"""`nomoat show`: all nomoat knows of one model: licence chain with sources, memory, where its file is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat import paths
from nomoat.cli import completion, console, options
from nomoat.errors import NomoatError, UnknownModelError
from nomoat.money import dollars
from nomoat.records import ModelCard
from nomoat.words import listed

if TYPE_CHECKING:
    from nomoat.engine.lora import LoraDelta

OF_A_LAYER = re.compile(r"\.(\d+)\.")  # its number, in a name of its parts


def show(
    model: Annotated[
        str,
        typer.Argument(
            help="A card's id, BASE+ADAPTER, a .gguf file, a Hugging Face folder, hf:..., or a cloud reference.",
            autocompletion=completion.models_known,
        ),
    ],
    context: options.ContextToPlan = None,
    quality: options.Quality = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a model: what it was made from, under which terms it may be used, and what it needs.

    \b
    Examples:
      nomoat show alpaca-7b                  # why it may not be used commercially
      nomoat show smollm2-135m -c 8192
      nomoat show smollm2-135m+reviews       # a tuned model: base, data and teacher
      nomoat show ./model.gguf --json
      nomoat show ./reviews-lora.gguf        # an adapter's file or folder by itself: base, rank, terms

    Not legal advice: the verdict cites its sources, and says "unknown" rather than guess.
    """
    facts, lines = _describe(model, context)
    if as_json:
        console.print_json(facts)
    else:
        console.print_text("\n".join(map(console.one_line, lines)))  # a file's name for itself could hold a verdict's


def _describe(ref: str, context: int | None) -> tuple[dict[str, Any], list[str]]:
    from nomoat import references
    from nomoat.catalog import cards, pull, tuned
    from nomoat.cli.model_facts import adapter_place
    from nomoat.textfiles import as_named

    if references.is_path(ref):
        return _adapter(ref, as_named(ref)) if _is_adapter(as_named(ref)) else _file(as_named(ref), context)
    card = cards.find(ref) or next((card for card in cards.cards() if card.api == ref), None)
    if card is not None:
        return _card(card, context)
    path = pull.find_installed(ref)
    if path is not None:
        return _file(path, context)
    references.require_weights(ref)
    if "+" in ref:
        references.require_one_adapter(*references.split(ref))
        place = adapter_place(ref)
        return _adapter(ref, place if place and place.is_dir() else tuned.find_adapter(references.parted(ref)[1]))
    if ref.startswith(references.BY_ADDRESS):
        pull.require_source(ref)
        raise UnknownModelError(f"`{ref}` is not in the catalogue and not on this disk", hint=f"nomoat pull {ref}")
    references.require_no_file_meant(ref)
    return _card(cards.card(ref), context)  # which is none: it raises


def _card(card: ModelCard, context: int | None) -> tuple[dict[str, Any], list[str]]:
    from nomoat.catalog import licences
    from nomoat.cli import model_facts

    need = model_facts.card_need(card, context)
    facts = model_facts.card_facts(card, need)
    known = (model_facts.parameters(card.parameters), card.architecture, card.template and f"template {card.template}")
    size = [str(part) for part in known if part]
    if card.context_tokens:
        size.append(f"context {card.context_tokens:,} tokens")
    lines = [
        f"{card.title} ({card.id})",
        f"{card.developer}, {card.released}; {card.kind}",
        "; ".join(size) or "sizes never published",
    ]
    for source in card.sources:
        checked = f", sha256 {source.sha256[:16]}…" if source.sha256 else ", sha256 as the hub promises it"
        where = f"{source.file_name}, from NOMOAT_MIRROR only" if source.is_mirrors_only else source.url
        lines.append(f"file: {where}{f', {paths.shown_size(source.size_bytes)}' if source.size_bytes else ''}{checked}")
    if card.notes:
        lines.append(f"note: {card.notes}")
    if facts["price"] is not None:
        price, long = facts["price"], facts["price"].long_prompts
        given, written = dollars(price.input_usd_per_million), dollars(price.output_usd_per_million)
        dearer = ""
        if long:
            dearer = f"{dollars(long.input_usd_per_million)} and {dollars(long.output_usd_per_million)} above {long.above_tokens:,}; "
        lines.append(f"price: {given} in, {written} out per million {price.unit} ({dearer}as of {price.as_of}; {price.source})")
    lines += licences.chain_lines(licences.chain(card))
    if need is not None:
        lines += [f"memory: {model_facts.memory_line(need)}", model_facts.cache_line(need), model_facts.scoring_line(need)]
        if not facts["runs_here"]:
            lines.append(f"engine: cannot run {card.architecture} yet")
    if facts["pulled"] and facts["runs_here"]:
        facts["layout"] = model_facts.layout_facts(Path(facts["pulled"]))
        lines += model_facts.layout_lines(facts["layout"])
    if card.sources:
        lines.append(f"here: {facts['pulled']}" if facts["pulled"] else f"here: no; `nomoat pull {card.id}`")
    elif card.api:
        lines.append(f"here: no; prompts to `{card.api}` leave this machine")
    return facts, lines


def _file(path: Path, context: int | None) -> tuple[dict[str, Any], list[str]]:
    """What a file, or a folder of the hub, says of itself, and the card it is the file of, found by its sha256."""
    from nomoat import labelling, references
    from nomoat.catalog import licences, pull, tuned
    from nomoat.cli import model_facts
    from nomoat.engine import importer
    from nomoat.engine.source import files_of, open_source

    source = open_source(path)
    said, size_bytes = source.metadata, sum(file.stat().st_size for file in files_of(path))
    architecture = model_facts.architecture_of(source)
    sha256 = importer.sha256_of_model(path)
    card = pull.card_of(path, importer.sha256_of_model)
    found, exported = references.weights_chain(path), references.exported_facts(path)
    question = tuned.question_of(exported)
    need, longest = model_facts.file_need(source, context)
    facts: dict[str, Any] = {
        "path": str(path),
        "size_bytes": size_bytes,
        "sha256": sha256,
        "card": card.id if card is not None else None,
        "says": {name: said[name] for name in sorted(said) if name.startswith("general.") and isinstance(said[name], str | int)},
        "parameters": source.num_values,
        "context_tokens": longest,
        "licence": licences.as_dict(found),
        "question": question,
        "memory": model_facts.memory_facts(need),
        "runs_here": model_facts.can_run(source),
    }
    lines = [
        f"{path}",
        f"{paths.shown_size(size_bytes)}, sha256 {sha256}",
        f"card: {card.id if card is not None else 'none has this sha256'}",
    ]
    lines.append(f"says of itself: {said.get('general.name', 'no name')}; {model_facts.parameters(source.num_values)}; {architecture}")
    if card is None and not exported and "general.license" in said:
        name = f" ({said['general.license.name']})" if "general.license.name" in said else ""
        lines.append(f"claims the licence {said['general.license']}{name}, which nobody here has checked")
    lines += [
        *licences.chain_lines(found),
        f"memory: {model_facts.memory_line(need)}",
        model_facts.cache_line(need),
        model_facts.scoring_line(need),
    ]
    if facts["runs_here"]:
        facts["layout"] = model_facts.layout_facts(path)
        lines += model_facts.layout_lines(facts["layout"])
    else:
        lines.append(f"engine: cannot run {architecture} yet")
    if question is not None:
        lines.append(labelling.question_line(question))
    return facts, lines


def _is_adapter(path: Path) -> bool:
    """Whether it is one by itself: PEFT's folder, or a LoRA in a GGUF file."""
    from nomoat.catalog import tuned
    from nomoat.engine import gguf_lora
    from nomoat.hub_folder import CONFIG

    if path.is_dir():
        return tuned.is_adapter(path) and not (path / CONFIG).is_file()
    return gguf_lora.is_adapter(path)


def _adapter(ref: str, place: Path) -> tuple[dict[str, Any], list[str]]:
    """A tuned model, or an adapter by itself, beside the base it names: its matrices, and the licence chain its `provenance.json`
    recorded, or what can be said without one.
    """
    from nomoat import labelling, references
    from nomoat.catalog import licences, tuned
    from nomoat.engine import folder_tokenizer
    from nomoat.engine.lora import LoraDelta

    provenance, notes, matrices, said = tuned.provenance_of(place), "", None, ""
    try:
        delta = LoraDelta(place)
        matrices, said = _matrices(delta), delta.base
    except NomoatError as exc:
        notes = exc.message
    is_alone = references.is_path(ref)
    base = _base_of(provenance) if is_alone else references.parted(ref)[0]
    found = references.adapter_chain(base, place)
    question = tuned.question_of(provenance)
    facts = {
        "ref": ref,
        "path": str(place),
        "base": base or said or None,
        "lora": matrices,
        "licence": licences.as_dict(found),
        "question": question,
        "provenance": provenance,
        "notes": notes,
    }
    lines = [f"{ref}", f"adapter: {place}", *([f"cannot be read: {notes}"] if notes else [])]
    if matrices is not None:
        lines.append(_matrices_line(matrices))
    if is_alone:
        name = ref if tuned.place_of(ref) is not None else f"{ref}.gguf, once the file is called so"
        lines.append(f"no model by itself; its base: {base or said or 'not told'}; asked as {base or 'BASE'}+{name}")
    lines += licences.chain_lines(found)
    told = {name: value for name, value in provenance.items() if isinstance(value, str | int | float)}
    if not any(link.role == "data" and link.name.startswith(str(told.get("data_file"))) for link in found.links):
        told.pop("data_licence", None)  # a model wrote the data, which are nobody's own
    lines += [f"{name}: {value}" for name, value in told.items()]
    if template := tuned.template_of(provenance):
        lines.append(f"chat template: {template}")
    elif folder_tokenizer.chat_templates(place)[0] is not None:
        lines.append("chat template: the one in its folder")
    if question is not None:
        lines.append(labelling.question_line(question))
    return facts, lines


def _base_of(provenance: dict[str, Any]) -> str:
    """What an adapter was tuned beside, as a model is named; "" where that was not recorded. `nomoat export` writes its file alone."""
    from nomoat.catalog import cards, tuned

    file = str(provenance.get("base_file") or "")
    known = cards.find_by_file(file)
    return tuned.base_of(provenance) or (known.id if known else file)


def _matrices(delta: LoraDelta) -> dict[str, Any]:
    """What a LoRA changes: by the names its file has, which are the base's."""
    ranks, numbers = delta.ranks, {int(found[1]) for layer in delta.layers if (found := OF_A_LAYER.search(layer))}
    return {
        "ranks": sorted(set(ranks.values())),
        "alpha": delta.alpha,
        "matrices": len(ranks),
        "targets": sorted({layer.rpartition(".")[2] for layer in ranks}),
        "layers": sorted(numbers),
    }


def _matrices_line(told: dict[str, Any]) -> str:
    least, most = told["ranks"][0], told["ranks"][-1]
    rank = f"{least}" if least == most else f"{least} to {most}"
    layers = f" of layers {told['layers'][0]} to {told['layers'][-1]}" if told["layers"] else ""
    beside = f"{told['matrices']:,} of the base's matrices, {listed(told['targets'])}{layers}"
    return f"LoRA: rank {rank}, alpha {told['alpha']:g}, beside {beside}"
