"""A model reference -> something that answers. The one place that knows every form a reference can take.

smollm2-135m                      a card of the catalogue, pulled before
path/to/file.gguf                 weights on disk
path/to/folder                    the same as the Hugging Face hub has them: config.json and safetensors
hf:owner/repo/file.gguf           a file of the Hugging Face hub, pulled before
hf:owner/repo                     a folder of the Hugging Face hub, pulled before
https://host/file.gguf            a file of any server, pulled before
BASE+ADAPTER                      a base with a tuned adapter, by name or by folder
openai:gpt-4o-mini                a cloud API (also google:, anthropic:)
http://host:port/v1#model         any OpenAI-compatible server
stored:suite/name                 answers given before and kept (those of this machine's own runs: judge/kept.py)
fake:                             the deterministic engine of tests and docs

`auto`, which `nomoat run` and `nomoat serve` take besides, is no model but a choice between two: route/router.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nomoat import config, hardware, paths
from nomoat.catalog import tuned
from nomoat.engine import Engine, Reader
from nomoat.errors import NomoatError, NotEnoughMemoryError, RemoteError, UnknownModelError, UnsupportedError, UsageError
from nomoat.hardware import Detected
from nomoat.hub_folder import CONFIG
from nomoat.pool import run_many
from nomoat.records import Chunk, Completion, ContinuationScore, Parent, Request, TokenLikelihood
from nomoat.textfiles import whole_characters

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nomoat.catalog.licences import ChainVerdict
    from nomoat.catalog.memory import MemoryNeed
    from nomoat.engine.arch import Dimensions
    from nomoat.engine.source import ModelSource
    from nomoat.engine.tokenizer import Tokenizer

DEFAULT_CONCURRENCY = 16
MAX_BROKEN_ANSWERS = 3

Item = TypeVar("Item")
Result = TypeVar("Result")

ImportProgress = Callable[[int, int], None]


class Responder:
    """An engine under the name the user gave it. Use as a context manager, or call `close`."""

    def __init__(self, ref: str, engine: Engine, *, licence: str = "unknown", template: Detected[str] | None = None) -> None:
        """`template`: the name of the chat template in use and why it is, where it is not the model's own."""
        self.ref = ref
        self.engine = engine
        self.licence = licence
        self.template = template

    @property
    def _send_away(self) -> Callable[[], None] | None:
        """Sends away those who wait for a server or for workers; None for an engine in this process."""
        return getattr(self.engine, "give_up_waiting", None)

    @property
    def name(self) -> str:
        """The reference without folders of this machine, to be shown to others: a file is known by its name."""
        return shown_name(self.ref)

    @property
    def digest(self) -> str:
        """What stored answers are kept under: see `Engine.digest`."""
        return self.engine.digest

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""
        return self.engine.is_local

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about its answers, whatever they say."""
        return getattr(self.engine, "notes", ())

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """What has to be known about its answer to this request, once it has begun: settings that another server refused."""
        says = getattr(self.engine, "notes_on", None)
        return () if says is None else tuple(says(request))

    @property
    def num_workers(self) -> int:
        """How many processes, each with the whole model, answer."""
        return getattr(self.engine, "num_workers", 1)

    def stream(self, request: Request) -> Iterator[Chunk]:
        """The answer as it is written; see `Engine.generate`."""
        return self.engine.generate(request)

    def complete(self, request: Request, *, caller_left: threading.Event | None = None) -> Completion:
        """The whole answer. One that broke off on its way from a server is asked for again; an error has what all attempts sent.

        An engine in this process stops when `caller_left` is set; what a server writes may be paid for, and is waited for.
        """
        sent_before = 0
        for attempt in range(1, MAX_BROKEN_ANSWERS + 1):
            try:
                completion = self._collect(request, caller_left)
                usage = replace(completion.usage, bytes_out=completion.usage.bytes_out + sent_before)
                return replace(completion, usage=usage)
            except NomoatError as error:
                sent_before += error.bytes_out
                error.bytes_out = sent_before
                is_lost = isinstance(error, RemoteError) and error.fate == "lost"
                if not is_lost or attempt == MAX_BROKEN_ANSWERS or (caller_left is not None and caller_left.is_set()):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _collect(self, request: Request, caller_left: threading.Event | None) -> Completion:
        pieces: list[str] = []
        with closing(cast("Generator[Chunk]", self.engine.generate(request))) as chunks:
            for chunk in chunks:
                pieces.append(chunk.text)
                if chunk.finish_reason is not None and chunk.usage is not None:
                    return Completion(text=whole_characters("".join(pieces)), finish_reason=chunk.finish_reason, usage=chunk.usage)
                if caller_left is not None and caller_left.is_set() and self._send_away is None:
                    break
        raise RuntimeError(f"{self.ref}: the answer ended without a finish reason")

    def complete_many(
        self, requests: Sequence[Request], *, concurrency: int = DEFAULT_CONCURRENCY
    ) -> Iterator[tuple[int, Completion]]:
        """Answers as (index, completion), in the order in which they finish; up to `concurrency` at once. See `run_many`."""
        return self.run_many(lambda request, left: self.complete(request, caller_left=left), requests, concurrency=concurrency)

    def run_many(
        self, work: Callable[[Item, threading.Event], Result], items: Sequence[Item], *, concurrency: int
    ) -> Iterator[tuple[int, Result]]:
        """`pool.run_many`, with `concurrency` for each worker; who only waits for an answer is sent away when the caller leaves."""
        on_leaving = self._send_away or (lambda: None)
        return run_many(work, items, concurrency=concurrency * self.num_workers, on_leaving=on_leaving)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """Log-likelihood of each continuation; see `Engine.score`."""
        return self.engine.score(request, continuations)

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        """The mean of each text's last hidden states, [N, D]; see `Reader`. Raises UnsupportedError as `prompt_likelihoods` does."""
        return self._reader("embeddings").embed(texts, stop=stop)

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        """How likely each token of the prompt is; see `Reader`. Raises UnsupportedError where the weights are elsewhere."""
        return self._reader("likelihoods").prompt_likelihoods(request, stop=stop)

    def _reader(self, what: str) -> Reader:
        if not isinstance(self.engine, Reader):
            raise UnsupportedError(f"`{self.ref}` gives no {what}", hint="use a model on this machine")
        return self.engine

    def bound_cache(self, num_bytes: int) -> None:
        """Let keys and values of its texts take no more, but a context of usual length always. Of an engine that is not asked yet."""
        bound = getattr(self.engine, "bound_cache", None)
        if bound is not None:
            bound(num_bytes)

    def close(self) -> None:
        """Free the engine's memory."""
        self.engine.close()

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def shown_name(ref: str) -> str:
    """See `Responder.name`."""
    base = ref.rpartition("+")[0] or ref
    return Path(ref).name if paths.expanded(base).exists() else ref


def load(
    ref: str,
    *,
    context_tokens: int | None = None,
    template: str | None = None,
    fallback_template: str | None = None,
    as_client: bool = True,
    progress: ImportProgress | None = None,
    compiling: ImportProgress | None = None,
) -> Responder:
    """The responder a reference names. Connects to nothing, but for references that name a server.

    `context_tokens` shortens the model's context (and the memory planned for it). `template` names the chat template of a local
    model, where neither its adapter, nor its file, nor its card has the right one: see `engine/templates.py`; `fallback_template`
    is used only where none of them has any. `as_client` False is for servers, whose own clients send NOMOAT_API_KEY: it is then not
    sent to the server that a reference names. `progress` is told (layers done, layers) while a file is imported, once for each file.
    `compiling` is told (functions done, functions) while a model's products are compiled, once a machine; without it that is done when
    the model is first asked.
    Raises UnknownModelError, BadFileError, NotEnoughMemoryError, UnsupportedError, and UsageError for `auto` and for closed models.
    """
    if ref == "auto":
        raise UsageError(
            "`auto` chooses between two models, and one is needed here",
            hint="name the model; `nomoat run`, `nomoat serve` and `nomoat.route.router.load_auto()` know `auto`",
        )
    if ref == "fake:":
        from nomoat.engine.fake import FakeEngine

        return Responder(ref, FakeEngine())
    if ref.startswith("stored:"):
        return _load_stored(ref)
    if _names_server(ref):
        from nomoat.engine.remote import remote_engine

        return Responder(ref, remote_engine(ref, as_client=as_client))
    (responder,) = _load_local([ref], context_tokens, template, fallback_template, progress, compiling)
    return responder


def load_sharing(
    refs: Sequence[str], *, context_tokens: int | None = None, template: str | None = None, progress: ImportProgress | None = None,
    compiling: ImportProgress | None = None,
) -> list[Responder]:  # fmt: skip
    """The responders of a base and its adapters, or of several of its adapters, on one copy of the base's weights.

    Each keeps the chat template it has by itself. `progress`, `compiling`, and what is raised: as `load`.
    """
    return _load_local(refs, context_tokens, template, None, progress, compiling)


def groups(refs: Sequence[str]) -> list[list[str]]:
    """References that can share one copy of their weights, together; all others by themselves.

    Raises what `load` raises for what is not there.
    """
    from nomoat.engine import importer
    from nomoat.engine.source import open_source

    found: dict[object, list[str]] = {}
    for ref in dict.fromkeys(refs):
        key: object = ref
        if names_weights(ref):
            weights = find_files(ref).weights
            if importer.read_sizes(open_source(weights)).has_paged_attention:
                key = weights.resolve()
        found.setdefault(key, []).append(ref)
    return list(found.values())


def names_weights(ref: str) -> bool:
    """Whether a reference means a file on this disk, rather than a server, stored answers or the router."""
    return not (ref in ("fake:", "auto") or ref.startswith("stored:") or _names_server(ref))


def _names_server(ref: str) -> bool:
    """A provider's name alone does, too: `remote_engine` says what it lacks."""
    from nomoat.engine.providers import BASE_URLS, is_remote

    return is_remote(ref) or ref in BASE_URLS


def memory_need(ref: str, context_tokens: int | None) -> MemoryNeed | None:
    """About how much memory a reference will take; None for what is not on this disk."""
    if not names_weights(ref):
        return None
    from nomoat.engine import importer
    from nomoat.engine.source import open_source

    context_tokens = context_tokens or config.context_tokens()
    source = open_source(find_files(ref).weights)
    stored, _ = importer.planned(source)
    sizes = importer.read_sizes(source, context_tokens=context_tokens)
    return _memory_need(sizes, source.num_values, stored.bytes_of(source), context_tokens, keeps_codes=stored.has_tiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFiles:
    """What a reference to local weights means on this disk. `name` is the card's id, or the path, of the base."""

    name: str
    weights: Path
    adapter: Path | None

    def template(self, *, asked: str | None = None, own: str | None, fallback: str | None = None) -> Detected[str] | None:
        """The name of the chat template to use in place of the file's `own`, and why; None to use its own.

        What is asked for comes first, then what the adapter was tuned with, then, for a file without one, what the model's card names,
        then the fallback. A card is known by its id, or by its file's name.
        """
        if asked:
            return Detected(asked, "as asked")
        if self.adapter and (named := tuned.template_of(tuned.provenance_of(self.adapter))):
            return Detected(named, "as it was tuned")
        if own is not None:
            return None
        from nomoat.catalog import cards

        known = (card for card in cards.cards() if self.weights.name in {source.file_name for source in card.sources})
        card = cards.find(self.name) or next(known, None)
        if card and card.template:
            return Detected(card.template, "from its card: the file has none")
        return Detected(fallback, "as asked: it has none") if fallback else None

    def read_tokenizer(self, source: ModelSource) -> Tokenizer:
        """The tokenizer of these weights, opened, with the chat template it answers with."""
        words = source.read_tokenizer()
        if named := self.template(own=words.chat_template):
            words.use_template(named.value)
        return words


def find_files(ref: str) -> LocalFiles:
    """The files of a card, a path or a file that was pulled by its address, with or without an adapter.

    Raises UnknownModelError for what does not exist here, naming the nearest, and saying how to fetch what can be fetched.
    """
    if not all(ref.rpartition("+")[::2] if "+" in ref else (ref,)):
        raise UsageError(
            f"`{ref}` names no model", hint="write MODEL, or BASE+ADAPTER for a tuned one; `nomoat models` lists the models"
        )
    base, adapter = split(ref)
    return LocalFiles(name=base, weights=_find_weights(base), adapter=tuned.find_adapter(adapter) if adapter else None)


def split(ref: str) -> tuple[str, str]:
    """The base and the adapter that a reference names; "" for no adapter: a path, or a pulled file, may hold a plus of its own."""
    from nomoat.catalog import pull

    base, _, adapter = ref.rpartition("+")
    return (base, adapter) if base and adapter and not is_path(ref) and pull.find_installed(ref) is None else (ref, "")


def is_path(ref: str) -> bool:
    """Whether a reference means what lies at that path. A folder that is no model does not hide a card, or an adapter of one."""
    from nomoat.catalog import cards

    path = paths.expanded(ref)
    if not path.is_dir() or (path / CONFIG).is_file():
        return path.exists()
    return cards.find(ref) is None and cards.find(ref.rpartition("+")[0]) is None


def _find_weights(ref: str) -> Path:
    if is_path(ref):
        return paths.expanded(ref)
    if ref.endswith(".gguf") and not ref.startswith(("hf:", "https:")):
        raise UnknownModelError(f"no file at `{ref}`", hint="check the path, or see what there is with `nomoat models`")
    from nomoat.catalog import pull

    installed = pull.find_installed(ref)
    if installed is not None:
        return installed
    pull.require_source(ref)
    raise UnknownModelError(f"`{ref}` is not on this machine yet", hint=f"nomoat pull {ref}")


def _load_local(
    refs: Sequence[str],
    context_tokens: int | None,
    template: str | None,
    fallback_template: str | None,
    progress: ImportProgress | None,
    compiling: ImportProgress | None,
) -> list[Responder]:
    """Of the same weights."""
    from nomoat.engine import importer
    from nomoat.engine.openvino import OpenVINOEngine

    files = [find_files(ref) for ref in refs]
    weights = files[0].weights
    adapters = list(dict.fromkeys(found.adapter for found in files if found.adapter is not None))
    context_tokens = context_tokens or config.context_tokens()
    folder, beside = importer.import_with(
        weights, adapters, alone=len(refs) == 1, context_tokens=context_tokens, progress=progress,
        check=_memory_check(refs[0], context_tokens),
    )  # fmt: skip
    baked = adapters[0] if adapters and not beside else None
    engine = OpenVINOEngine(folder, context_tokens=context_tokens, weights=weights, adapter=baked, beside=beside)
    if compiling:
        engine.compile_once(compiling)
    own = engine.tokenizer.chat_template
    named = [found.template(asked=template, own=own, fallback=fallback_template) for found in files]
    views: list[Engine] = [
        engine.adapted(adapters.index(found.adapter), template=name.value if name else None) if found.adapter and beside else engine
        for found, name in zip(files, named, strict=True)
    ]
    for view, name in zip(views, named, strict=True):  # after the views, which are told apart by the engine's digest
        if view is engine and name:
            engine.use_template(name.value)
    return [
        Responder(ref, view, licence=_licence(found), template=name)
        for ref, view, found, name in zip(refs, views, files, named, strict=True)
    ]


def _memory_need(
    sizes: Dimensions, num_values: int, weights_bytes: int, context_tokens: int | None, *, keeps_codes: bool
) -> MemoryNeed:
    from nomoat.catalog import memory

    planned = min(context_tokens or memory.default_context_tokens(), sizes.context_tokens)
    shape = memory.ModelSizes(
        parameters=num_values, weights_bytes=weights_bytes, keeps_codes=keeps_codes, layers=sizes.layers, kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim, context_tokens=min(context_tokens or sizes.context_tokens, sizes.context_tokens),
    )  # fmt: skip
    need = memory.memory_need(shape, planned)
    assert need is not None  # only closed models have none
    return need


def _memory_check(ref: str, context_tokens: int | None) -> Callable[[Dimensions, int, int, bool], None]:
    """What raises NotEnoughMemoryError, told what `importer.import_gguf` tells its `check`, if the model would not fit."""

    def check(sizes: Dimensions, num_values: int, weights_bytes: int, has_tiles: bool) -> None:
        need = _memory_need(sizes, num_values, weights_bytes, context_tokens, keeps_codes=has_tiles)
        free = hardware.memory_available_bytes().value
        if need.total_bytes > free:
            raise NotEnoughMemoryError(
                f"`{ref}` needs about {need.total_bytes / 1e9:.1f} GB of memory at a context of {need.context_tokens:,} tokens, "
                f"and {free / 1e9:.1f} GB are free",
                hint="choose a smaller model (`nomoat models --fits`) or a shorter context (`-c 1024`), or close other programs",
            )

    return check


def licence_chain(ref: str) -> ChainVerdict | None:
    """What a local model may be used for, with all it was made from; None for a model elsewhere. Raises what `find_files` raises."""
    return _chain(find_files(ref)) if names_weights(ref) else None


def adapter_chain(base: str, adapter: Path) -> ChainVerdict:
    """The licence chain that an adapter's `provenance.json` recorded, with that of `base` where it was tuned beside another.

    Without a recorded one, what can be said. A base that is not here is known by its name alone, whatever folder has that name.
    Raises BadFileError.
    """
    from nomoat.catalog import cards, licences, sidecar

    try:
        weights = _find_weights(base) if base else None
    except NomoatError:
        weights = None
    if weights is not None and weights.is_dir() and not (weights / CONFIG).is_file():
        weights = None
    chain = licences.chain(cards.find(base)) if weights is None else weights_chain(weights)
    path, provenance = adapter / "provenance.json", tuned.provenance_of(adapter)
    if not path.is_file():
        return licences.joined(chain, licences.of_parents([Parent(kind="data", name="data not recorded", licence="unknown")]))
    found = sidecar.recorded_chain(provenance, path, hint="tune the adapter again")
    return found if _was_base(base, weights, provenance) else licences.joined(chain, found)


def _was_base(base: str, weights: Path | None, provenance: dict[str, Any]) -> bool:
    """Whether an adapter was tuned beside this base: by its sha256, where it is here and was recorded."""
    from nomoat.catalog import pull
    from nomoat.engine.importer import sha256_of_model

    is_named = provenance.get("base") == base
    if weights is None or "base_sha256" not in provenance:
        return is_named or Path(base).name == provenance.get("base_file")
    return (is_named and pull.find_installed(base) == weights) or provenance["base_sha256"] == sha256_of_model(weights)


def weights_chain(weights: Path) -> ChainVerdict:
    """The licence chain of weights without an adapter: their card's, or see `sidecar.chain_of`. Raises BadFileError."""
    from nomoat.catalog import licences, pull, sidecar
    from nomoat.engine.importer import sha256_of_model

    card = pull.card_of(weights, sha256_of_model)
    return licences.chain(card) if card is not None else sidecar.chain_of(weights, sha256_of_model)


def _chain(files: LocalFiles) -> ChainVerdict:
    return weights_chain(files.weights) if files.adapter is None else adapter_chain(files.name, files.adapter)


def _licence(files: LocalFiles) -> str:
    """Whether the model may be used commercially, in a few words: the chain's verdict and the terms that decide it."""
    found = _chain(files)
    return f"{found.commercial} ({', '.join(dict.fromkeys(link.title for link in found.deciding))})"


def _load_stored(ref: str) -> Responder:
    from nomoat.catalog.datasets import pull_dataset
    from nomoat.engine.stored import stored_engine

    suite, slash, name = ref.removeprefix("stored:").partition("/")
    if not (slash and suite and name):
        raise UsageError(f"`{ref}` does not name stored answers", hint="write stored:SUITE/NAME, such as stored:vicuna80/gpt35")
    return Responder(ref, stored_engine(suite, name, pull_dataset(suite)))
