"""`nomoat export`: a tuned model as files other programs run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nomoat import commands, paths, streams, whole_files
from nomoat.cli import answering, completion, console, options
from nomoat.errors import UsageError

if TYPE_CHECKING:
    from nomoat.catalog.licences import ChainVerdict
    from nomoat.tune.export import Quantisation

OLLAMAS_NAMES = re.compile(r"[A-Za-z0-9_.-]+")  # of Ollama's types/model/name.go


class Form(StrEnum):
    """What is written."""

    GGUF = "gguf"
    LORA = "lora"
    OLLAMA = "ollama"


def export(
    model: Annotated[str, typer.Argument(help="A tuned model: BASE+NAME.", autocompletion=completion.models_tuned)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.gguf); with --form ollama, the folder.")],
    form: Annotated[
        Form, typer.Option(help="gguf: one merged file; lora: the adapter alone; ollama: merged, and a Modelfile.")
    ] = Form.GGUF,
    quantisation: Annotated[
        str | None, typer.Option(help="Q8_0 (unless told), Q5_1, Q5_0, Q4_1, Q4_0, BF16, F16 or F32 (merged files).")
    ] = None,
    replace: options.Replace = False,
) -> None:
    """Write a tuned model for llama.cpp, Ollama, LM Studio and the like.

    \b
    Examples:
      nomoat export smollm2-135m+reviews -o reviews.gguf
      nomoat export smollm2-135m+reviews -o reviews-lora.gguf --form lora     # llama.cpp: --lora
      nomoat export smollm2-135m+reviews -o reviews/ --form ollama            # ollama create reviews -f reviews/Modelfile

    4-bit files are smaller and answer differently: measure with `nomoat eval FILE`.
    """
    from typing import get_args

    from nomoat import references
    from nomoat.catalog import pull
    from nomoat.engine import importer
    from nomoat.engine.source import open_source
    from nomoat.tune import export as exporting
    from nomoat.tune import ollama

    if form is Form.LORA and quantisation is not None:
        raise UsageError("an adapter alone is written as it is", hint="leave out --quantisation; --form gguf writes a merged file")
    kind, kinds = (quantisation or "Q8_0").upper(), get_args(exporting.Quantisation)
    if kind not in kinds:
        raise UsageError(f"`{quantisation}` is no quantisation that can be written", hint=", ".join(kinds))
    files = references.find_files(model)
    if files.adapter is None:
        raise UsageError(f"`{model}` is not tuned", hint="name a tuned model: BASE+NAME; `nomoat tune` makes one")
    target = output / f"{files.adapter.name.removesuffix('.gguf')}.gguf" if form is Form.OLLAMA else _as_gguf(output)
    modelfile = output / "Modelfile"
    for path in (target, modelfile) if form is Form.OLLAMA else (target,):
        _require_free(path, files.weights, replace=replace)
    pull.require_as_published(files.weights, importer.remembered_sha256)
    answering.say_notes(files.notes)
    terms = references.adapter_chain(files.name, files.adapter)
    if form is Form.LORA:
        with _no_empty_folder(target.parent):
            exporting.lora_gguf(files.weights, files.adapter, target, terms=terms)
        _say_written(target, terms, files.question)
        return
    source = open_source(files.weights)
    tokenizer = files.read_tokenizer(source)
    templates = tokenizer.templates if files.brought or files.template(own=source.chat_template) else None
    with _no_empty_folder(target.parent), ExitStack() as whole:
        if form is Form.OLLAMA:  # first, and in its place last: where the disk is full, there is neither
            part = whole.enter_context(whole_files.whole_file(modelfile))
            context = importer.read_sizes(source).context_tokens
            ollama.write_modelfile(
                part, model=target, tokenizer=tokenizer, context_tokens=context, question=files.question, terms=terms
            )
        bar = whole.enter_context(console.stage_progress())
        task = bar.add_task("writing", total=None, info="")
        written = exporting.merged_gguf(
            files.weights, files.adapter, target, quantisation=cast("Quantisation", kind), templates=templates, terms=terms,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    _say_written(written, terms, files.question)
    if form is Form.OLLAMA:
        name = target.stem if OLLAMAS_NAMES.fullmatch(target.stem) else "tuned"
        console.say(f"wrote {modelfile}; next: {commands.as_line(['ollama', 'create', name, '-f', str(modelfile)])}")


def _as_gguf(output: Path) -> Path:
    """The file to write: with the ending by which it is known as a model, or behind the plus of BASE+FILE.gguf, if it has another."""
    is_file = not (output.is_dir() or streams.is_stream(output))
    return output.with_name(f"{output.name}.gguf") if is_file and output.suffix.lower() != ".gguf" else output


@contextmanager
def _no_empty_folder(folder: Path) -> Iterator[None]:
    """Where the block fails, a folder that was not there before is gone again, and so are those above it, as far as they are empty."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # not empty, or never made
                place.rmdir()
        raise


def _require_free(target: Path, weights: Path, *, replace: bool) -> None:
    """Raise UsageError for what is there already, if it is not to be replaced, and for the base's own files always."""
    from nomoat.engine.source import files_of

    if any(target.resolve() == file.resolve() for file in files_of(weights)):
        raise UsageError(f"`{target}` is the base itself, which the tuned model is made of", hint="choose another --output")
    if target.parent.is_file():
        raise UsageError(f"`{target.parent}` is a file, not a folder", hint="choose another --output")
    if target.is_dir():
        raise UsageError(f"`{target}` is a folder", hint=f"name a file: --output {target / 'tuned.gguf'}")
    if streams.is_stream(target):
        raise UsageError(f"`{target}` is a pipe or a device, and a model is a file", hint="choose another --output")
    if target.exists() and not replace:
        raise UsageError(f"`{target}` is there already", hint="choose another --output, or --replace it")


def _say_written(path: Path, terms: ChainVerdict, question: str | None) -> None:
    """The file, and what stands beside it: what it may be used for, and what it was taught to be asked. It is what is passed on, the
    adapter alone no less."""
    from nomoat.catalog import sidecar
    from nomoat.cli.tune import say_terms
    from nomoat.labelling import question_line

    console.say(f"wrote {path} ({paths.shown_size(path.stat().st_size)})")
    say_terms(terms)
    if question is not None:
        console.say(question_line(question))
    what = "these terms stand" if question is None else "these terms and words stand"
    console.say(f"{what} in {sidecar.path_of(path)}: keep it beside the file")
