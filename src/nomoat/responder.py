"""A model reference -> something that answers. The one place that knows every form a reference can take.

smollm2-135m                      a card of the catalogue, pulled before
path/to/file.gguf                 weights on disk
path/to/folder                    the same as the Hugging Face hub has them: config.json and safetensors
hf:owner/repo/file.gguf           a file of the Hugging Face hub, pulled before
hf:owner/repo                     a folder of the Hugging Face hub, pulled before
https://host/file.gguf            a file of any server, pulled before
BASE+ADAPTER                      a base with a tuned adapter, by name or by folder
openai:gpt-4o-mini                a cloud API, one of `providers.PROVIDERS`
http://host:port/v1#model         any OpenAI-compatible server
stored:suite/name                 answers given before and kept (those of this machine's own runs: judge/kept.py)
fake:                             the deterministic engine of tests and docs

`auto`, which `nomoat run` and `nomoat serve` take besides, is no model but a choice between two: route/router.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, cast

from nomoat import bounds, config, labelling, references
from nomoat.engine import Engine, Reader
from nomoat.errors import BadFileError, NomoatError, RemoteError, StoppedError, UnsupportedError, UsageError, about
from nomoat.hardware import Detected
from nomoat.pool import DEFAULT_CONCURRENCY, GRACE_SECONDS, run_many, some
from nomoat.progress import Progress
from nomoat.records import Chunk, Completion, ContinuationScore, Message, Request, TokenLikelihood
from nomoat.textfiles import whole_characters

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from nomoat.catalog.memory import MemoryNeed, ModelSizes
    from nomoat.engine.arch import Dimensions
    from nomoat.engine.importer import Check
    from nomoat.engine.local import LocalEngine
    from nomoat.engine.source import ModelSource
    from nomoat.engine.templates import Template

MAX_BROKEN_ANSWERS = 3

Item = TypeVar("Item")
Result = TypeVar("Result")
Piece_co = TypeVar("Piece_co", covariant=True)


class Stream(Iterator[Piece_co], Protocol[Piece_co]):
    """An iterator whose work can be ended before its end."""

    def close(self) -> None:
        """As a generator's."""
        ...


class Responder:
    """An engine under the name the user gave it. Use as a context manager, or call `close`.

    What is asked is a Request, or a text: the first question of a conversation, with a Request's defaults. Of anything else UsageError
    is raised.
    """

    def __init__(
        self, ref: str, engine: Engine, *, licence: str = "unknown", template: Detected[str] | None = None,
        notes: tuple[str, ...] = (), question: str | None = None,
    ) -> None:  # fmt: skip
        """`template`: the name of the chat template in use and why it is, where one is used by its name. `notes`: see there.
        `question`: what a model tuned on a table learned to answer, see `labelling.kept_question`; of `auto` the model on this
        machine."""
        self.ref = ref
        self.engine = engine
        self.licence = licence
        self.template = template
        self.question = question
        self._notes = notes
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<model {self.ref}{', closed' if self._is_closed else ''}>"

    def __reduce__(self) -> NoReturn:
        """A model's threads, and its connections, are those of one process. Raises UnsupportedError."""
        raise UnsupportedError(
            f"{self!r} cannot be pickled or copied",
            hint=f"give the other process its name, {self.ref!r}, and have it load the model itself",
        )

    @property
    def name(self) -> str:
        """The reference without folders of this machine, to be shown to others: a file is known by its name."""
        return references.shown_name(self.ref)

    @property
    def digest(self) -> str:
        """What stored answers are kept under: see `Engine.digest`."""
        return self.engine.digest

    @property
    def scores_digest(self) -> str:
        """What stored likelihoods are kept under: another one where they are those of the served form, for want of memory."""
        return self.engine.scores_digest

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""
        return self.engine.is_local

    @property
    def chats(self) -> bool | None:
        """Whether it has a chat template; None where that is not known here, as of a server's."""
        tokenizer = self.engine.tokenizer
        return None if tokenizer is None else tokenizer.chat_template is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about its answers, whatever they say."""
        return (*self._notes, *self.engine.notes)

    def notes_on(self, request: Request | str) -> tuple[str, ...]:
        """What has to be known about its answer to this request, once it has begun: settings that another server refused, or that the
        model's chat template does not read, and other words than those of the table that it was tuned on."""
        request = _asked(request)
        return (*self._notes, *self._other_words(request), *self.engine.notes_on(request))

    def _other_words(self, request: Request) -> tuple[str, ...]:
        if self.ref == references.AUTO:  # of its two models the tuned one says so, where it is the one that answers
            return ()
        said = [request.prompt or "", *(message.content for message in request.messages if message.role == "user")]
        if self.question is None or request.prompt_ids is not None or labelling.is_put(self.question, said[-1]):
            return ()
        return (
            f"`{self.name}` was tuned on a table, and asked in other words than it learned: `nomoat run` with `--as-tuned` asks about "
            "a text in those, and `nomoat show` prints them",
        )

    @property
    def num_workers(self) -> int:
        """How many processes, each with the whole model, answer."""
        return self.engine.num_workers

    def stream(self, request: Request | str) -> Stream[Chunk]:
        """The answer as it is written; its last chunk has the `finish_reason` and the `usage`. Closing it ends the answer. Of a model
        on this machine any thread may do that. See `Engine.generate`.
        """
        return cast("Stream[Chunk]", self.engine.generate(_asked(request)))

    def complete(self, request: Request | str, *, caller_left: threading.Event | None = None) -> Completion:
        """The whole answer. One that broke off on its way from a server is asked for again, and if another question may have ended
        it, the last time while we ask that server nothing else; an error has what all attempts sent.

        An engine in this process stops when `caller_left` is set: StoppedError is raised. What a server writes may be paid for, and is
        waited for.
        """
        request = _asked(request)
        _require_event("caller_left", caller_left)
        sent_before, ended_bare = 0, False
        for attempt in range(1, MAX_BROKEN_ANSWERS + 1):
            try:
                completion = self._collect(request, caller_left, alone=ended_bare and attempt == MAX_BROKEN_ANSWERS)
                usage = replace(completion.usage, bytes_out=completion.usage.bytes_out + sent_before)
                return replace(completion, usage=usage)
            except NomoatError as error:
                sent_before += error.bytes_out
                error.bytes_out = sent_before
                if not isinstance(error, RemoteError) or error.fate != "lost":
                    raise
                if attempt == MAX_BROKEN_ANSWERS or (caller_left is not None and caller_left.is_set()):
                    raise
                ended_bare = error.ended_bare
        raise AssertionError("the last attempt returns or raises")

    def _collect(self, request: Request, caller_left: threading.Event | None, *, alone: bool) -> Completion:
        pieces, likelihoods = list[str](), list[TokenLikelihood]()
        with ExitStack() as ended:
            engine = ended.enter_context(self.engine.chosen_for(request)).asked_for_whole(alone=alone)
            for chunk in ended.enter_context(closing(cast("Stream[Chunk]", engine.generate(request)))):
                pieces.append(chunk.text)
                likelihoods += chunk.likelihoods
                if chunk.finish_reason is not None and chunk.usage is not None:
                    return Completion(
                        text=whole_characters("".join(pieces)), finish_reason=chunk.finish_reason, usage=chunk.usage,
                        likelihoods=tuple(likelihoods), calls=chunk.calls,
                    )  # fmt: skip
                if caller_left is not None and caller_left.is_set() and engine.give_up_waiting is None:
                    raise StoppedError(
                        f"`{self.ref}`: the answer was stopped", hint="`caller_left` is set: to have the whole answer, ask again"
                    )
        raise RuntimeError(f"{self.ref}: the answer ended without a finish reason")

    def complete_many(
        self, requests: Iterable[Request | str], *, concurrency: int = DEFAULT_CONCURRENCY
    ) -> Generator[tuple[int, Completion]]:
        """Answers as (index, completion), in the order in which they finish; up to `concurrency` at once. See `run_many`.

        Raises UsageError before anything is asked, for one of the requests that is none. An error is raised when what was begun has
        been yielded; one of what is wrong with a request itself names it, and has its number as `at`.
        """
        asked = _several(requests)
        for at, request in enumerate(asked):
            _require_question(request, f"`requests[{at}]`")

        def complete(one: tuple[int, Request | str], left: threading.Event) -> Completion:
            at, request = one
            with about("requests", at, len(asked)):
                return self.complete(request, caller_left=left)

        return self.run_many(complete, list(enumerate(asked)), concurrency=concurrency)

    def run_many(
        self, work: Callable[[Item, threading.Event], Result], items: Sequence[Item], *, concurrency: int, is_free: bool = False
    ) -> Generator[tuple[int, Result]]:
        """`pool.run_many`, with `concurrency` for each worker; who only waits for an answer is sent away when the caller leaves.

        `is_free`: answers cost nothing; those that others make are not waited for then. Raises UsageError for a `concurrency` below 1.
        """
        concurrency = some(concurrency)
        on_leaving = self.engine.give_up_waiting or (lambda: None)
        grace_seconds = 0.0 if is_free and self.engine.give_up_waiting is not None else GRACE_SECONDS
        return run_many(work, items, concurrency=concurrency * self.num_workers, on_leaving=on_leaving, grace_seconds=grace_seconds)

    def score(self, request: Request | str, continuations: Iterable[str]) -> list[ContinuationScore]:
        """Log-likelihood of each continuation right after the prompt, in their order. Raises UnsupportedError where the weights are
        elsewhere. See `Engine.score`.
        """
        several = _several(continuations)
        bounds.require_texts("continuations", several)
        return self.engine.score(_asked(request), several)

    def embed(self, texts: Iterable[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        """A vector of each text, [N, D]: the mean of its last hidden states, unless the model says otherwise. A text may be given as
        the model's own token ids.

        Raises UnsupportedError where the weights are elsewhere. See `Reader`.
        """
        _require_event("stop", stop)
        several = [_text_or_ids(f"texts[{at}]", text) for at, text in enumerate(_several(texts))]
        return self._reader("embeddings").embed(several, stop=stop)

    def prompt_likelihoods(self, request: Request | str, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        """How likely each token of the prompt is; see `Reader`. Raises UnsupportedError where the weights are elsewhere."""
        _require_event("stop", stop)
        return self._reader("likelihoods").prompt_likelihoods(_asked(request), stop=stop)

    def _reader(self, what: str) -> Reader:
        if not isinstance(self.engine, Reader):
            raise UnsupportedError(f"`{self.ref}` gives no {what}", hint="use a model on this machine")
        return self.engine

    def bound_cache(self, num_bytes: int) -> None:
        """Let keys and values of its texts take no more, but a context of usual length always. Of an engine that is not asked yet."""
        self.engine.bound_cache(num_bytes)

    def close(self) -> None:
        """Free the engine's memory."""
        self._is_closed = True
        self.engine.close()

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def ref_of(model: str | Responder) -> str:
    """What the user called a model, loaded or not."""
    return model if isinstance(model, str) else model.ref


def _asked(request: Request | str) -> Request:
    _require_question(request, "the question")
    return Request(messages=(Message(role="user", content=request),)) if isinstance(request, str) else request


def _require_question(request: Request | str, what: str) -> None:
    if isinstance(request, str):
        bounds.require_text(request, what)
    elif not isinstance(request, Request):
        raise UsageError(
            f"a model is asked a text or a `nomoat.records.Request`, and {what} is of the type {type(request).__name__}",
            hint=bounds.text_hint(
                request, what, otherwise='give "…", or for a conversation Request(messages=(Message(role="user", content="…"), …))'
            ),
        )


def _require_event(name: str, given: threading.Event | None) -> None:
    if given is not None and not hasattr(given, "is_set"):
        raise UsageError(f"`{name}` is {bounds.shown(given)}", hint="give a threading.Event")


def _text_or_ids(name: str, given: str | Sequence[int]) -> str | Sequence[int]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        return bounds.token_ids(name, given, hint='give "…", or the whole numbers that are the model\'s own tokens')
    bounds.require_text(given, f"`{name}`")
    return given


def _several(texts: Iterable[Item]) -> list[Item]:
    return bounds.several(texts, "texts are asked about at once", one=str | Request)


def load(
    ref: str | os.PathLike[str],
    *,
    context_tokens: int | None = None,
    template: str | None = None,
    fallback_template: str | None = None,
    as_client: bool = True,
    progress: Progress | None = None,
    compiling: Progress | None = None,
) -> Responder:
    """The responder a reference names. Connects to nothing, but for references that name a server.

        with nomoat.load("smollm2-135m") as model:
            print(model.complete("What is a moat?").text)

    `context_tokens` shortens the model's context (and the memory planned for it). `template` names the chat template of a local
    model, where neither its adapter, nor its file, nor its card has the right one: see `engine/templates.py`; `fallback_template`
    is used only where none of them has any. `as_client` False is for servers, whose own clients send NOMOAT_API_KEY: it is then not
    sent to the server that a reference names, and what that one leaves unanswered does not keep other clients waiting for long.
    `progress` is told (layers done, layers) while a file is imported, once for each file.
    `compiling` is told (functions done, functions) while a model's products are compiled, once for each installation on a machine;
    without it that is done when the model is first asked.
    Raises UnknownModelError, BadFileError, NotEnoughMemoryError, NotEnoughDiskError, NotWritableError, UnsupportedError, WorkerError
    where a process that imports the file crashes, ForkedError in a fork of a process that had asked or tuned a model, and UsageError
    for `auto`, for closed models, for a context of no tokens, and for a `template` of what is no weights on this disk.
    """
    ref = references.named(ref)
    context_tokens = checked_context(context_tokens)
    bounds.require_flag("as_client", as_client)
    if ref == references.AUTO:
        raise UsageError(
            "`auto` chooses between two models, and one is needed here",
            hint="name the model; `nomoat run`, `nomoat serve` and `load_auto()` of nomoat.route.router know `auto`",
        )
    require_template_taken([ref], template)
    for named in filter(None, (template, fallback_template)):
        from nomoat.engine import templates

        templates.named(named)
    if ref == references.FAKE:
        from nomoat.engine.fake import FakeEngine

        return Responder(ref, FakeEngine())
    if ref.startswith(references.STORED):
        return _load_stored(ref)
    if references.names_server(ref):
        from nomoat.engine.remote import remote_engine

        return Responder(ref, remote_engine(ref, as_client=as_client))
    (responder,) = _load_local([ref], context_tokens, template, fallback_template, progress, compiling)
    return responder


def load_sharing(
    refs: Sequence[str], *, context_tokens: int | None = None, template: str | None = None, progress: Progress | None = None,
    compiling: Progress | None = None,
) -> list[Responder]:  # fmt: skip
    """The responders of a base and its adapters, or of several of its adapters, on one copy of the base's weights.

    Each keeps the chat template it has by itself. `progress`, `compiling`, and what is raised: as `load`.
    """
    context_tokens = checked_context(context_tokens)
    return _load_local(refs, context_tokens, template, None, progress, compiling)


def require_template_taken(refs: Sequence[str], template: str | None) -> None:
    """Raise UsageError for a chat template that is named where none of the references would use it."""
    if template and not any(map(references.takes_template, refs)):
        raise UsageError(
            f"`{refs[0]}` takes no chat template, and `{template}` is named",
            hint="leave out `--template` (in Python: `template`), which is for weights on this disk",
        )


def checked_context(tokens: int | None) -> int | None:
    """The context that is asked for, if one is. Raises UsageError for what is no number of tokens, and for none."""
    if tokens is None:
        return None
    tokens = bounds.whole("context_tokens", tokens)
    if tokens < 1:
        raise UsageError(f"a context of {tokens} tokens is asked for", hint="ask for at least 1, or leave it out")
    return tokens


def groups(refs: Sequence[str]) -> list[list[str]]:
    """References that can share one copy of their weights, together; all others by themselves.

    Raises what `load` raises for what is not there.
    """
    from nomoat.engine import importer, layout
    from nomoat.engine.source import open_source

    found: dict[object, list[str]] = {}
    for ref in dict.fromkeys(refs):
        key: object = ref
        if references.names_weights(ref):
            weights = references.find_files(ref).weights
            source = open_source(weights)
            if layout.stands_beside(source, importer.read_sizes(source), importer.planned(source)):
                key = weights.resolve()
        found.setdefault(key, []).append(ref)
    return list(found.values())


def what_is_wrong(ref: str) -> NomoatError | None:
    """Why a base, or one of its adapters beside it, cannot be loaded from the files it has now: it or its adapter is gone, or the
    adapter is damaged or another base's. None where nothing is seen.

    Of the base's weights the header is read, and all of them only for their sha256 where that is not noted yet. Damage of the base
    beyond its header, and memory, are not looked at.
    """
    from nomoat.catalog import tuned
    from nomoat.engine import importer, templates

    try:
        files = references.find_files(ref)
        if files.adapter is not None:
            importer.require_beside(files.weights, [files.adapter])
            if named := tuned.template_of(files.provenance):
                templates.named(named)
            else:
                files.brought  # noqa: B018 - is read, and what is damaged of it found
        references.licence_of(files)
    except NomoatError as error:
        return error
    return None


def require_memory(ref: str, source: ModelSource, *, scoring_bytes: int = 0) -> None:
    """Raises what `load` raises for weights that nomoat cannot run, or that memory does not hold now. Reads none.

    `scoring_bytes`: what is needed besides.
    """
    from nomoat.catalog import memory

    memory.require_room(ref, memory_need(source, None), scoring_bytes=scoring_bytes)


def scoring_bytes(source: ModelSource, question_tokens: int) -> int:
    """About how much memory an opened model takes besides, to choose among answers to questions of at most so many tokens."""
    from nomoat.catalog import memory

    sizes = model_sizes(source, None)
    longest = config.context_tokens() or sizes.context_tokens or question_tokens  # a longer one is refused, whatever memory there is
    return memory.need_at(sizes).scoring(min(question_tokens, longest))


def memory_need(source: ModelSource, context_tokens: int | None) -> MemoryNeed:
    """About how much memory an opened model will take."""
    from nomoat.catalog import memory

    return memory.need_at(model_sizes(source, context_tokens), context_tokens)


def model_sizes(source: ModelSource, context_tokens: int | None) -> ModelSizes:
    """What the memory of an opened model depends on, as it runs here at the context asked for, else at NOMOAT_CONTEXT_TOKENS.

    Raises BadFileError, and UnsupportedError for what does not run here.
    """
    from nomoat.engine import importer
    from nomoat.engine.optimum import ForeignFolder

    stored = importer.planned(source)
    sizes = importer.read_sizes(source, context_tokens=context_tokens or config.context_tokens())
    family = str(source.require("general.architecture"))
    counted = _as_counted(sizes, source.num_values, stored.bytes_of(source, sizes), stored.has_tiles, family)
    return replace(counted, is_converted=isinstance(source, ForeignFolder))


def _load_local(
    refs: Sequence[str],
    context_tokens: int | None,
    template: str | None,
    fallback_template: str | None,
    progress: Progress | None,
    compiling: Progress | None,
) -> list[Responder]:
    """Of the same weights."""
    for name, told in (("progress", progress), ("compiling", compiling)):
        if told is not None:
            bounds.require_type(name, told, Callable)
    from nomoat.catalog import pull
    from nomoat.engine import forked, importer

    forked.require_none()
    files = [references.find_files(ref) for ref in refs]
    weights = files[0].weights
    adapters = list(dict.fromkeys(found.adapter for found in files if found.adapter is not None))
    context_tokens = context_tokens or config.context_tokens()
    with _unremoved(weights), ExitStack() as on_failure:
        pull.require_as_published(weights, importer.remembered_sha256)
        folder, beside = importer.import_with(
            weights, adapters, alone=len(refs) == 1, context_tokens=context_tokens, progress=progress,
            check=_memory_check(refs[0], context_tokens),
        )  # fmt: skip
        from nomoat.engine.local import LocalEngine  # late: what memory does not hold is refused without it

        baked = adapters[0] if adapters and not beside else None
        engine = LocalEngine(folder, context_tokens=context_tokens, weights=weights, adapter=baked, beside=beside)
        on_failure.callback(engine.close)
        if compiling:
            engine.compile_once(compiling)
        own = engine.tokenizer.chat_template
        named = [found.template(asked=template, own=own, fallback=fallback_template) for found in files]
        used = [name.value if name else _other_template(found, engine) for found, name in zip(files, named, strict=True)]
        views: list[Engine] = [
            engine.adapted(adapters.index(found.adapter), template=chosen) if found.adapter and beside else engine
            for found, chosen in zip(files, used, strict=True)
        ]
        for view, chosen in zip(views, used, strict=True):  # after the views, which are told apart by the engine's digest
            if view is engine and chosen:
                engine.use_template(chosen)
        loaded = [
            Responder(ref, view, licence=references.licence_of(found), template=name, notes=found.notes, question=found.question)
            for ref, view, found, name in zip(refs, views, files, named, strict=True)
        ]
        on_failure.pop_all()
        return loaded


@contextmanager
def _unremoved(weights: Path) -> Iterator[None]:
    """Raises BadFileError that says so where somebody removes the weights meanwhile, and with them what was imported of them."""
    try:
        yield
    except (FileNotFoundError, BadFileError) as exc:
        if weights.exists():
            raise
        raise BadFileError(
            f"`{weights}` was removed while it was loaded", hint="load it when it is there again; `nomoat pull MODEL` fetches a model"
        ) from exc


def _other_template(files: references.LocalFiles, engine: LocalEngine) -> Template | None:
    """The chat template in the adapter's folder; None where it is the model's own, whose answers it does not change."""
    brought = files.brought
    return None if brought is None or brought.texts == engine.tokenizer.templates else brought


def _as_counted(sizes: Dimensions, num_values: int, weights_bytes: int, has_tiles: bool, family: str | None) -> ModelSizes:
    """Of what `importer.import_gguf` tells its `check`."""
    from nomoat.catalog import memory

    return memory.ModelSizes(
        parameters=num_values, weights_bytes=weights_bytes, keeps_codes=has_tiles, layers=sizes.layers, kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim, architecture=family, experts=sizes.experts, context_tokens=sizes.context_tokens,
    )  # fmt: skip


def _memory_check(ref: str, context_tokens: int | None) -> Check:
    """What raises NotEnoughMemoryError, told what `importer.import_gguf` tells its `check`, if the model would not fit."""
    from nomoat.catalog import memory

    return lambda *told: memory.require_room(ref, memory.need_at(_as_counted(*told), context_tokens))


def _load_stored(ref: str) -> Responder:
    from nomoat.catalog.datasets import pull_dataset
    from nomoat.engine.stored import stored_engine

    suite, slash, name = ref.removeprefix(references.STORED).partition("/")
    if not (slash and suite and name):
        raise UsageError(f"`{ref}` does not name stored answers", hint="write stored:SUITE/NAME, such as stored:vicuna80/gpt35")
    return Responder(ref, stored_engine(suite, name, pull_dataset(suite)))
