"""The engine of models on this machine: answers from an imported folder, on the CPU.

Usual models run in passes of nomoat's own (`native`), all others in OpenVINO's (`paged`, `serial`); `batching` lets many texts share
them. Likelihoods of continuations come from `likelihood`, by OpenVINO: in float32 with the file's own weights where the machine has
the memory for it, so that a verdict is about the model. Each is made ready when it is first asked for.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import hashlib
import itertools
import json
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nomoat import cache, config, footprint, net, paths
from nomoat.engine import (
    Engine,
    KvCache,
    closed,
    forked,
    frames,
    harmony,
    importer,
    layout,
    likelihood,
    pooling,
    served_scores_digest,
    shutdown,
    tool_calls,
)
from nomoat.engine.arch import Dimensions
from nomoat.engine.batching import Batcher, Model
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.compiled import CompiledCopy
from nomoat.engine.continuations import Question
from nomoat.engine.grammar import Grammar, Grammars
from nomoat.engine.imported import not_whole
from nomoat.engine.likelihood import Scorer
from nomoat.engine.lookup import Lookup
from nomoat.engine.lora import LoraDelta
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import PagedModel
from nomoat.engine.sampling import Pick, Sampler
from nomoat.engine.scoring_line import ScoringLine
from nomoat.engine.serial import SerialModel
from nomoat.engine.templates import Template
from nomoat.engine.texts import HEARTBEAT_SECONDS, Answer, Reading, Tokens
from nomoat.engine.tokenizer import Tokenizer, name_of
from nomoat.engine.tokenizer import load as load_tokenizer
from nomoat.engine.tool_call_grammar import ChannelCallGrammar, ToolCallGrammar
from nomoat.errors import ContextExceededError, SchemaError, StoppedError, UnsupportedError, UsageError, about
from nomoat.matching import begun_length
from nomoat.progress import Progress
from nomoat.records import ChoiceScores, Chunk, ContinuationScore, FinishReason, Request, TokenLikelihood, Usage


@dataclass(kw_only=True, eq=False)
class _Shared:
    """What an engine and its views have one of. It is theirs alone: who forgets them all, forgets it, and its threads end."""

    weights: Path | None
    context_tokens: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    scoring: threading.Lock = field(default_factory=threading.Lock)  # another one: scoring takes long, and answers do not wait for it
    cache_bytes: int | None = None
    batcher: Batcher | None = None
    is_closed: bool = False
    line: ScoringLine = field(default_factory=ScoringLine)
    scorer: tuple[int | None, Scorer] | None = None  # the one asked last, and of which adapter beside the weights

    @functools.cached_property
    def is_exact(self) -> bool | None:
        """See `importer.fits_exactly`. Asked once: memory may get a limit meanwhile, and what is kept is to say what was computed."""
        return self.weights is not None and importer.fits_exactly(self.weights)

    def require_open(self) -> None:
        if self.is_closed:
            raise closed()


class LocalEngine(Engine):
    """See the module. Nothing is compiled before it is needed; the digest is that of the imported folder and of how it is run.

    Engines that `adapted` gives are views of one: they have their adapter, tokenizer and digest, and share all else.
    """

    is_local = True
    tokenizer: Tokenizer

    def __init__(
        self, folder: Path, *, context_tokens: int | None = None, weights: Path | None = None, adapter: Path | None = None,
        beside: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        """`weights`, `adapter`: what was imported, for likelihoods that are exact; without them they are those of the folder.

        `beside`: folders of adapters that are not baked into the weights; `adapted` gives the engine of each.
        """
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nomoat"]
            self.storage = layout.Storage.from_dict(facts["storage"])
            self.digest: str = facts["digest"]
            sizes = self._sizes = Dimensions(**facts["sizes"])
            self._pooling: str = facts["pooling"]
            self._notes: tuple[str, ...] = tuple(facts["notes"])
            self._sha256_of_weights: str = facts["source_sha256"]
            self._sha256_of_baked: str = facts["adapter_sha256"]
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as exc:
            raise not_whole(folder, exc) from exc
        self._context_tokens = min(sizes.context_tokens, context_tokens or sizes.context_tokens)
        self.tokenizer = load_tokenizer(folder)
        self._num_tokens = self.tokenizer.num_among(sizes.vocabulary)
        self._grammars = Grammars(self.tokenizer, sizes.vocabulary)
        # they are opened when likelihoods are first asked for, wherever the process has gone by then
        self._folder, self._weights, self._adapter = folder, weights and weights.absolute(), adapter and adapter.absolute()
        self._beside = importer.read_adapters(folder, [one.absolute() for one in beside])
        self._blueprint = Blueprint(folder) if self.storage.has_tiles else None
        self._native = self._blueprint if self._blueprint is not None and self._blueprint.can_run(self._beside) else None
        self._token_bytes = footprint.kv_bytes_a_token(sizes.layers, sizes.kv_heads, sizes.head_dim)
        if self._native is not None:  # what keys and values are rounded to is no part of the folder, and of its answers
            self._token_bytes = self._native.cache_bytes_a_token(self.storage.quality)
            self.digest = hashlib.sha256(f"{self.digest}\n{self._token_bytes}".encode()).hexdigest()
        self.layout = layout.choose(sizes, self.storage, threads=config.threads())
        self._at: int | None = None  # of the adapter beside the weights that answers
        self._shared = _Shared(weights=self._weights, context_tokens=self._context_tokens)

    @property
    def context_tokens(self) -> int:
        return self._shared.context_tokens

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    @property
    def scores_digest(self) -> str:
        return served_scores_digest(self.digest) if self._shared.is_exact is False else self.digest

    @property
    def kv_cache(self) -> KvCache | None:
        batcher = self._shared.batcher
        return None if batcher is None else batcher.kv_cache

    def use_template(self, chosen: str | Template) -> None:
        """Chat with this template, or the named one; see `Tokenizer.use_template`."""
        self.tokenizer.use_template(chosen)
        self.digest = paths.sha256_of_texts(self.digest, *self.tokenizer.templates.values())

    def bound_cache(self, num_bytes: int) -> None:
        """See `Responder.bound_cache`, in whole blocks. No text may then be longer than the cache."""
        block_bytes = BLOCK_TOKENS * self._token_bytes
        usual = -(-min(self._context_tokens, footprint.USUAL_TOKENS) // BLOCK_TOKENS)
        num_blocks = max(-(-num_bytes // block_bytes), usual)
        self._shared.cache_bytes = num_blocks * block_bytes
        self._shared.context_tokens = min(self._context_tokens, num_blocks * BLOCK_TOKENS)

    def start(self) -> None:
        forked.begin()
        self._started_batcher()
        if self._native is not None:
            from nomoat.engine import program

            program.team()

    def adapted(self, at: int, *, template: str | Template | None = None) -> LocalEngine:
        """This engine with one of the adapters beside it, and a chat template of its own. Closing either closes both."""
        view = copy.copy(self)
        view._at = at
        view.tokenizer = copy.copy(self.tokenizer)
        made_of = [self.digest, self._beside[at].sha256]
        if template is not None:
            view.tokenizer.use_template(template)
            made_of += view.tokenizer.templates.values()
        view.digest = paths.sha256_of_texts(*made_of)
        return view

    def generate(self, request: Request) -> Iterator[Chunk]:
        forked.begin()
        ids = self._prompt_ids(request, 1, request.max_new_tokens)
        self._require_room(len(ids), 1, request.max_new_tokens)
        room = self.context_tokens - len(ids)
        answer = Answer(
            ids,
            Sampler(request, ids, self._grammar(request, ids), num_tokens=self._num_tokens),
            max_new_tokens=room if request.max_new_tokens is None else min(request.max_new_tokens, room),
            stop_ids=self.tokenizer.stop_ids(is_middle=bool(request.suffix)),
            lookup=Lookup(ids),
            adapter=self._at,
            asker=net.asker(),
        )
        batcher = self._started_batcher()
        started = time.perf_counter()  # compiling the model is loading, not reading the prompt
        batcher.submit(answer)
        chunks = self._stream(request, ids, answer.tokens, started)
        if request.tools:
            chunks = tool_calls.recognised(chunks, request, self.tokenizer.template_for(request.tools))
        return _Begun(chunks, answer.tokens)

    def _grammar(self, request: Request, ids: Sequence[int]) -> Grammar | ToolCallGrammar | None:
        template = self.tokenizer.template_for(request.tools)
        schema = tool_calls.schema(request, template)
        if schema is None:
            if not request.tools:
                return None
            if request.must_call:
                self._blame_a_function(request)
            in_channels = harmony.is_spoken(template)
            return (ChannelCallGrammar if in_channels else ToolCallGrammar)(request, ids, self.tokenizer, self._grammars)
        try:
            return self._grammars.of_schema(schema)
        except SchemaError as exc:
            if request.json_schema is not None and not request.must_call:
                self._grammars.of_schema(request.json_schema)  # raises where that is the one
            self._blame_a_function(request)
            exc.field = "tools"
            raise

    def _blame_a_function(self, request: Request) -> None:
        """Raises SchemaError for the first function whose parameters no call can follow, if one is by itself too much, or whose name
        no call of this model can have."""
        in_channels = harmony.is_spoken(self.tokenizer.template_for(request.tools))
        for at, (name, parameters) in tool_calls.parameters_of(request).items():
            if in_channels and not harmony.can_call(name):
                hint = "name it in at most 64 letters, digits, `_` and `-`"
                unnamed = SchemaError(f"this model's calls cannot name `{name}`", hint=hint)
                unnamed.field = f"tools.{at}.function.name"
                raise unnamed
            try:
                self._grammars.of_schema(json.dumps(parameters))
            except SchemaError as exc:
                named = SchemaError(f"the function `{name}`: {exc.message}", hint=exc.hint, is_unsupported=exc.is_unsupported)
                named.field = f"tools.{at}.function.parameters"
                raise named from exc

    def _stream(self, request: Request, prompt: Sequence[int], tokens: Tokens, started: float) -> Generator[Chunk]:
        asked = () if request.must_call else request.stop  # a call that has to be one ends where its JSON does
        text = _StopWatch((*asked, *(self.tokenizer.stops if request.messages else ())))
        stream = self.tokenizer.answer_stream(request, prompt)
        stop_ids = self.tokenizer.stop_ids(is_middle=bool(request.suffix))
        first_at: float | None = None
        count = 0
        end: tuple[TokenLikelihood, ...] = ()
        reason: FinishReason = "length"
        try:
            for pick in tokens:
                if pick is not None:
                    first_at = first_at or time.perf_counter()
                    count += 1
                if net.asker_has_left():
                    tokens.cancel()
                    continue
                if pick is None:
                    yield Chunk(text="")
                    continue
                likelihoods = () if request.top_logprobs is None else (self._likelihood(pick),)
                if pick.token in stop_ids:
                    end = () if request.messages else likelihoods
                    reason = "stop"
                    break
                piece = text.push(stream.push(pick.token))
                if piece or likelihoods:
                    yield Chunk(text=piece, likelihoods=likelihoods)
                if text.stopped:
                    reason = "stop"
                    break
            else:
                reason = "cancelled" if tokens.cancelled else reason
        finally:
            tokens.cancel()
        if text.stopped:
            rest = ""
        else:
            rest = text.push(stream.finish(is_cut=reason != "stop")) + text.finish()
            reason = "stop" if text.stopped else reason
        ended = time.perf_counter()
        usage = Usage(
            prompt_tokens=len(prompt),
            completion_tokens=count,
            cached_tokens=tokens.num_kept or 0,
            prefill_seconds=(first_at or ended) - started,
            decode_seconds=ended - (first_at or ended),
        )
        stopped_by = text.stopped_by if text.stopped_by in asked else ""
        yield Chunk(text=rest, finish_reason=reason, usage=usage, likelihoods=end, stopped_by=stopped_by)

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        pooling.require_done(self._pooling)
        self._shared.require_open()
        for at, text in enumerate(texts):
            with about("texts", at, len(texts)):
                self._require_not_beyond(text, 0)
        ends = self.tokenizer.special.end_ids
        rows = [[*self.tokenizer.encode(text, add_bos=True), *ends] if isinstance(text, str) else list(text) for text in texts]
        vectors = [vector_D for vector_D, _ in _results(self._read(rows), stop)] if rows else []
        return np.array(vectors, np.float32) if rows else np.zeros((0, self._sizes.width), np.float32)

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        ids = self._prompt_ids(request, 0)
        goes_on = request.max_new_tokens == 1
        ((_, picks),) = _results(self._read([ids], top_logprobs=request.top_logprobs or 0, goes_on=goes_on), stop)
        return [self._likelihood(pick) for pick in [Pick(ids[0]), *picks]]

    def _read(self, rows: Sequence[list[int]], *, top_logprobs: int | None = None, goes_on: bool = False) -> list[Reading]:
        forked.begin()
        for at, row in enumerate(rows):
            with about("texts", at, len(rows)):
                self._require_readable(row)
        readings = [
            Reading(row, top_logprobs=top_logprobs, goes_on=goes_on, adapter=self._at, pooled=self._pooling, asker=net.asker())
            for row in rows
        ]
        batcher = self._started_batcher()
        for reading in readings:
            batcher.submit(reading)
        return readings

    def _require_readable(self, ids: Sequence[int]) -> None:
        if not ids:
            raise UsageError("the text has no tokens", hint="write something into it")
        self._require_known(ids)
        self._require_room(len(ids), 0)

    def _likelihood(self, pick: Pick) -> TokenLikelihood:
        top = tuple(self._likelihood(Pick(token, log_probability)) for token, log_probability in pick.top)
        content = self.tokenizer.token_bytes(pick.token)
        return TokenLikelihood(token_id=pick.token, content=content, log_probability=pick.log_probability, top=top)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return list(self.timed_scores(request, continuations).scores)

    def timed_scores(
        self, request: Request, continuations: Sequence[str], *, max_unread: float = 0.0, stop: threading.Event | None = None
    ) -> ChoiceScores:
        if request.prompt_ids is not None:
            raise UnsupportedError("likelihoods of continuations need a prompt of text", hint="give text instead of token ids")
        if request.suffix:
            raise UnsupportedError("likelihoods are of what follows a prompt, and of no middle", hint="leave `suffix` out")
        forked.begin()
        if not continuations:
            self._load_scorer()
            return ChoiceScores(scores=(), seconds=0.0)

        def require(text: str, prompt_tokens: int | None) -> None:
            if self.tokenizer.is_beyond(text, self.context_tokens):  # a continuation has so many tokens at least
                self._require_room(prompt_tokens, 1 if prompt_tokens is None else self.context_tokens)

        prompt, rows = likelihood.split(self.tokenizer, request, continuations, require=require)
        ends = likelihood.ends_of(self.tokenizer, request, rows, vocabulary=self._sizes.vocabulary)
        self._require_known([*prompt, *itertools.chain.from_iterable(rows)])
        self._require_room(len(prompt), max(map(len, rows)) + bool(ends))
        # In 8 bits a product's row depends on those beside it, so much that another choice could come out.
        question, line = Question(prompt, rows, ends, max_unread if self._shared.is_exact else 0.0), self._shared.line

        def read(questions: Sequence[Question]) -> dict[int, ChoiceScores]:
            return self._score_together(questions, stop)

        return line.scores(question, self._at, read, load=self._load_scorer, stop=stop)

    def _load_scorer(self) -> None:
        with self._shared.scoring:
            self._held_scorer()

    def _score_together(self, questions: Sequence[Question], stop: threading.Event | None) -> dict[int, ChoiceScores]:
        """The first, and what is read together with it, by their places. `stop`: that of who asked the first."""
        with self._shared.scoring:
            scorer = self._held_scorer()
            taken = scorer.beside(questions)
            began = time.perf_counter()
            several = scorer.score_many([questions[at] for at in taken], stop)
            seconds = (time.perf_counter() - began) / len(taken)
            return {at: ChoiceScores(scores=tuple(scores), seconds=seconds) for at, scores in zip(taken, several, strict=True)}

    def compile_once(self, progress: Progress | None = None) -> None:
        """Have nomoat's own products for this model, compiled if this machine has not yet; else that is done when it is first asked.

        `progress` is told (functions done, functions). Raises NotEnoughDiskError, NotWritableError.
        """
        if self._blueprint is not None:
            self._blueprint.compile_once(progress, adapters=bool(self._beside))

    def _held_scorer(self) -> Scorer:
        """One at a time, since memory is planned for one: another adapter's is let go of first. For who has the lock `scoring`."""
        shared = self._shared
        shared.require_open()
        if shared.scorer is None or shared.scorer[0] != self._at:
            shared.scorer = None
            shared.scorer = self._at, self._make_scorer()
        return shared.scorer[1]

    def _make_scorer(self) -> Scorer:
        """An adapter beside the weights is part of them here: exactly, or baked into an import of its own."""
        adapter = self._adapter if self._at is None else self._beside[self._at].place
        if self._weights is not None and self._shared.is_exact:
            with self._unchanged(self._weights, adapter):
                model = importer.exact_model(self._weights, adapter=adapter, context_tokens=self._context_tokens)
                return frames.scorer(model, self.layout.properties | layout.EXACT_PROPERTIES)
        folder = self._folder
        if self._at is not None:
            if self._weights is None:
                raise UnsupportedError(
                    "an adapter beside weights of no known file gives no likelihoods of continuations",
                    hint="give the engine the model's own file as `weights`, or load the model with `nomoat.load`",
                )
            with self._unchanged(self._weights, adapter):
                folder = importer.import_gguf(self._weights, adapter=adapter, context_tokens=self._context_tokens)
        self.compile_once()
        return Scorer(folder, self.layout.scoring_properties)

    @contextmanager
    def _unchanged(self, weights: Path, adapter: Path | None) -> Iterator[None]:
        """What is read within is what was loaded, or UsageError is raised: likelihoods are kept under the digest of that."""
        self._require_unchanged(weights, adapter)
        yield
        self._require_unchanged(weights, adapter)

    def _require_unchanged(self, weights: Path, adapter: Path | None) -> None:
        known = self._sha256_of_baked if self._at is None else self._beside[self._at].sha256
        changed: Path | None = weights
        with suppress(OSError):
            if importer.sha256_of_model(weights) == self._sha256_of_weights:
                changed = adapter if adapter is not None and LoraDelta(adapter).sha256 != known else None
        if changed is not None:
            raise UsageError(f"`{changed}` was changed or removed since it was loaded", hint="load it again")

    def count_tokens(self, request: Request) -> int:
        return len(self._prompt_ids(request, 1))

    def notes_on(self, request: Request) -> tuple[str, ...]:
        return (*self.notes, *self.tokenizer.notes_on(request))

    def close(self) -> None:
        if forked.is_fork():  # its threads are another process's, and whatever held these locks may never let go of them here
            return
        shared = self._shared
        with shared.lock:
            shared.is_closed = True
            if shared.batcher is not None:
                shared.batcher.close()
            shared.batcher = None
        with shared.scoring:
            shared.scorer = None

    def _prompt_ids(self, request: Request, needed: int, wanted: int | None = None) -> list[int]:
        """`needed`, `wanted`: see `_require_room`, which a text that is far too long is told by without being cut into tokens."""
        if request.suffix:
            for side in (request.prompt or "", request.suffix):
                self._require_not_beyond(side, needed, wanted)
            ids = self.tokenizer.prompt_ids(request)
        elif request.prompt_ids is None:
            text, add_bos = self.tokenizer.prompt_text(request)
            self._require_not_beyond(text, needed, wanted)
            ids = self.tokenizer.encode(text, add_bos=add_bos)
        else:
            ids = list(request.prompt_ids)
        if not ids:
            raise UsageError("the prompt has no tokens", hint="write something into it")
        self._require_known(ids)
        return ids

    def _require_known(self, ids: Sequence[int]) -> None:
        """A vocabulary may have more tokens than the weights, and a caller any number."""
        strange = next((token for token in ids if not 0 <= token < self._sizes.vocabulary), None)
        if strange is None:
            return
        named = name_of(self.tokenizer.backend, strange)
        raise UsageError(
            f"token {strange} is not one of this model's {self._sizes.vocabulary:,}",
            hint=f"its weights do not have `{named}`: leave it out" if named else "send text, or this model's own tokens",
        )

    def _require_not_beyond(self, text: str | Sequence[int], needed: int, wanted: int | None = None) -> None:
        if isinstance(text, str) and self.tokenizer.is_beyond(text, self.context_tokens):
            self._require_room(None, needed, wanted)

    def _require_room(self, prompt_tokens: int | None, needed: int, wanted: int | None = None) -> None:
        """`prompt_tokens`: None if they are more than the context; `wanted`: tokens of an answer that needs `needed`."""
        if prompt_tokens is None or prompt_tokens + needed > self.context_tokens:
            is_shortened = self.context_tokens == self._context_tokens < self._sizes.context_tokens
            raise ContextExceededError(
                prompt_tokens=prompt_tokens, max_new_tokens=wanted or needed, context_tokens=self.context_tokens,
                is_shortened=is_shortened,
                is_window=self._sizes.context_is_window and self.context_tokens == self._sizes.context_tokens,
            )  # fmt: skip

    def _make_model(self) -> Model:
        self.compile_once()
        if self._native is not None:
            return NativeModel(self._native, self._beside, self.storage.quality)
        with shutdown.waited_for():
            return self._make_openvino_model()

    def _make_openvino_model(self) -> Model:
        if self._sizes.has_paged_attention:
            kept = CompiledCopy(paths.cache() / cache.COMPILED / self._folder.name, self.layout.properties)
            return PagedModel(self._folder, self.layout.properties, self._beside, kept)
        if self._beside:
            raise UnsupportedError(
                "adapters beside the weights need paged attention, which this model cannot have on this CPU",
                hint="load the model with one adapter, which is then part of its weights",
            )
        return SerialModel(self._folder, self.layout.properties)

    def _started_batcher(self) -> Batcher:
        shared = self._shared
        with shared.lock:
            shared.require_open()
            if shared.batcher is None:
                shared.batcher = Batcher(self._make_model, context_tokens=self._context_tokens, cache_bytes=shared.cache_bytes)
                weakref.finalize(shared, shared.batcher.end_soon).atexit = False  # for who forgets to close; the system frees it then
            return shared.batcher


class _Begun:
    """The chunks of an answer that is under way. Closed or forgotten, even before the first is read, it ends the work: a generator
    that was not begun does not know of its end.

    Any thread may close it. Another one, which reads it, then gets the last chunk next, with the `finish_reason` "cancelled".
    """

    def __init__(self, chunks: Generator[Chunk], tokens: Tokens) -> None:
        self._chunks, self._tokens = chunks, tokens
        self._reader: int | None = None  # the thread that has asked for a chunk last

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        self._reader = threading.get_ident()
        return next(self._chunks)

    def close(self) -> None:
        """As a generator's."""
        self._tokens.cancel()
        if self._reader in (None, threading.get_ident()):  # else it is its reader's to end
            self._chunks.close()

    def __del__(self) -> None:
        self._tokens.cancel()


def _results(readings: Sequence[Reading], stop: threading.Event | None) -> list[tuple[npt.NDArray[np.float32], list[Pick]]]:
    """What was read; see `Reader` about `stop`. Whatever ends the waiting, such as Ctrl-C, ends the reading."""
    try:
        return [_result(reading, stop) for reading in readings]
    finally:
        for reading in readings:
            reading.result.cancel()  # does nothing to those that are there


def _result(reading: Reading, stop: threading.Event | None) -> tuple[npt.NDArray[np.float32], list[Pick]]:
    while stop is None or not stop.is_set():
        if concurrent.futures.wait([reading.result], HEARTBEAT_SECONDS).done:
            return reading.result.result()  # which may be a TimeoutError of the reading's own
    raise StoppedError("the reading was stopped", hint="whoever asked for it has gone, or the server is shutting down")


class _StopWatch:
    """Looks for stop strings in a text that grows, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped_by = ""

    @property
    def stopped(self) -> bool:
        return bool(self.stopped_by)

    def push(self, piece: str) -> str:
        self._held += piece
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            first, self.stopped_by = min(found)
            return self._held[:first]
        keep = max((begun_length(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def finish(self) -> str:
        return "" if self.stopped else self._held
