"""Whether models can be asked a suite at all: found out of all of them before the first one is loaded, and asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat import config, references
from nomoat import responder as responders
from nomoat.catalog import memory, tuned
from nomoat.engine import importer, served_scores_digest, server_address, templates
from nomoat.engine.source import ModelSource, open_source
from nomoat.engine.tokenizer import Tokenizer
from nomoat.engine.tokenizer import render as render_template
from nomoat.errors import (
    SET_CONTEXT,
    ContextExceededError,
    DataError,
    NotEnoughMemoryError,
    UnknownModelError,
    UnsupportedError,
)
from nomoat.judge import sandbox
from nomoat.judge.opened import opened_store
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.records import Example, Message
from nomoat.references import AUTO, STORED
from nomoat.responder import Responder

if TYPE_CHECKING:
    from nomoat.judge.asking import Asking


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chat:
    """The first conversation that a model is asked to answer, if there is one, why there is, and what helps where there cannot be.

    `models`: all that are asked it. `scored_tokens`: about what the longest has of which likelihoods are taken; None: none are.
    `are_kept`: whether all of these likelihoods are kept of a model, which then takes no memory for them.
    """

    messages: Sequence[Message]
    reason: str
    without_template: str
    refused: str
    models: Sequence[str | Responder] = ()
    scored_tokens: int | None = None
    are_kept: Callable[[str], bool] = lambda ref: False


BYTES_A_TOKEN = 3  # about: 4 of English, 2 of Korean
ANOTHER_JUDGE = "let another model judge"
FOR_A_JUDGE = _Chat(
    messages=(Message(role="user", content="Which answer is better?"),),  # as `judge_prompts` asks: one message of the user
    reason="a judge is asked in a chat",
    without_template=ANOTHER_JUDGE,
    refused=ANOTHER_JUDGE,
)


def require_askable(
    models: Sequence[str | Responder], suite: Suite, settings: RunSettings, *, judge: str | Responder | None = None
) -> None:
    """Find a model that cannot be asked before the first one is. No weights are read, and nothing is connected to.

    Raises what `load` raises of a reference: UnknownModelError for weights that are not here, BadFileError for damaged ones,
    UnsupportedError for those that nomoat cannot run, NotEnoughMemoryError for those that memory does not hold, OfflineError for
    servers that may not be asked, UsageError for `auto`, for what cannot be meant, for a chat template that is not known and for a
    key that is not set, and for one price that several servers would have. Raises UnsupportedError, too, for a model whose chat
    template is missing, or refuses the first question.

    Not looked at: whether an adapter fits its base, the words of questions after the first, what servers say, stored answers, and what
    workers on other machines have. Of what a judge reads in memory, the question alone is counted, and not the answers.
    """
    chat = _Chat(
        messages=suite.examples[0].messages if suite.chat and suite.examples else (),
        reason=f"`{suite.name}` asks in a chat",
        without_template="ask it a suite with `chat = false`",
        refused="ask what it does not refuse; or start `nomoat serve MODEL --template NAME`, and ask that server",
        models=models,
        scored_tokens=_longest(suite) if suite.metric == "choice" else None,
        are_kept=partial(_likelihoods_are_kept, suite=suite, settings=settings),
    )
    for model in models:
        _require(model, chat, settings)
    if judge is not None:
        _require(judge, replace(FOR_A_JUDGE, scored_tokens=_longest(suite)), settings)
    asked = [*models, *([] if judge is None else [judge])]
    settings.spending.require_one_server(model.ref if isinstance(model, Responder) else references.named(model) for model in asked)


def have_room_together(models: Sequence[str | Responder], suite: Suite, settings: RunSettings) -> bool:
    """Whether there is room for what these models, which are loaded, will take at once to choose among answers.

    One that the caller has loaded may have taken it already, and is not counted; nor is one whose likelihoods are kept.
    """
    if suite.metric != "choice" or settings.workers is not None:
        return True
    refs = [model for model in models if isinstance(model, str) and references.names_weights(model)]
    tokens = _longest(suite)

    def fit(refs: Sequence[str]) -> bool:
        needed = sum(responders.scoring_bytes(open_source(references.find_files(ref).weights), tokens) for ref in refs)
        return not needed or memory.OVERHEAD_BYTES + needed <= memory.room().value

    return fit(refs) or fit([ref for ref in refs if not _likelihoods_are_kept(ref, suite, settings)])


def _likelihoods_are_kept(ref: str, suite: Suite, settings: RunSettings) -> bool:
    """Whether those of all the examples are kept of a model of this name, in the form that it has with the memory of now.

    By names alone: where other weights had the name meanwhile, a model of the file's own weights is refused once it is asked.
    """
    is_served = importer.fits_exactly(references.find_files(ref).weights) is False
    kept = set()
    with opened_store(settings) as store:
        for one in store.outcomes(suite_sha256=suite.sha256, model=ref):
            digest, key = served_scores_digest(one.model_digest) if is_served else one.model_digest, one.outcome.answer_key
            asked = store.question(key)
            if one.metric == "choice" and asked is not None and store.key(digest, *asked) == key:
                kept.add(one.outcome.example_id)
    return {example.id for example in suite.examples} <= kept


def _longest(suite: Suite) -> int:
    """About how many tokens the longest question has, its choices with it."""
    texts = (([message.content for message in one.messages], one.choices) for one in suite.examples)
    return max((sum(len(text.encode()) for text in (*said, *choices)) for said, choices in texts), default=0) // BYTES_A_TOKEN


def require_scorable(suite: Suite) -> None:
    """Refuse a suite whose answers have no score of their own, or none that this machine can find out."""
    if suite.metric == "code":
        sandbox.require_wall()
    if suite.metric in ("review", "judge"):
        raise UnsupportedError(
            f"the answers to `{suite.name}` are neither right nor wrong: they can only be compared",
            hint="let a judge do it, with --judge MODEL (in Python: `nomoat.judge.judged.run_graded`); "
            f"or compare stored reviews: `nomoat duel {STORED}vicuna80/vicuna-13b {STORED}vicuna80/gpt35`",
        )


def require_context(run: Asking, examples: Iterable[Example], *, new_tokens: int) -> None:
    """Find the example that is too long before the first one is asked, and name it. Of a model without a bound none is looked at."""
    context_tokens = run.model.engine.context_tokens
    if context_tokens is None:
        return
    for example in examples:
        try:
            prompt_tokens = run.model.engine.count_tokens(run.request(example))
            is_longer, has = prompt_tokens + new_tokens > context_tokens, f"{prompt_tokens:,}"
            has_room = prompt_tokens < context_tokens
        except UnsupportedError:
            return
        except ContextExceededError as exc:
            is_longer, has, has_room = True, exc.tokens_said, False
        if is_longer:
            is_shortened = context_tokens == config.context_tokens()
            longer = f"raise {SET_CONTEXT}" if is_shortened else "choose a model with a longer context"
            can_be_lowered = has_room and new_tokens == run.max_new_tokens
            lower = ", lower --max-tokens (in Python: `max_new_tokens`)" if can_be_lowered else ""
            raise DataError(
                f"example `{example.id}` of `{run.suite.name}` has {has} tokens and the answer may have {new_tokens:,}, "
                f"but the context of `{run.model.ref}` is {context_tokens:,} tokens",
                hint=f"shorten or remove the example{lower}, or {longer}",
            )


def template_of(model: Responder, asked_as: str, settings: RunSettings) -> str | None:
    """The chat template of a model that was opened; of one that others load, or whose answers are kept, that of its files here.

    None where it has none, and where it is not known, as of a server's. `asked_as`: the reference it answers under.
    """
    if (tokenizer := model.engine.tokenizer) is not None:
        return tokenizer.chat_template
    if not references.names_weights(asked_as):
        return None
    with suppress(UnknownModelError):
        files = references.find_files(asked_as)
        return files.template_text(own=open_source(files.weights).chat_template, fallback=settings.template)
    return None


def _require(model: str | Responder, chat: _Chat, settings: RunSettings) -> None:
    if isinstance(model, Responder):
        tokenizer = model.engine.tokenizer
        if tokenizer is not None:
            _require_chat(model.ref, tokenizer.chat_template, chat, lambda: tokenizer)
    elif model == AUTO or (references.names_server(model) and server_address.parse(model)[2]):
        responders.load(model).close()  # connects to nothing: of a server the model is named
    elif references.names_weights(model) and (settings.workers is None or settings.workers.is_here):
        files = references.find_files(model)
        source = open_source(files.weights)
        scored = 0 if chat.scored_tokens is None else responders.scoring_bytes(source, chat.scored_tokens)
        try:
            responders.require_memory(model, source, scoring_bytes=scored)
        except NotEnoughMemoryError:
            if not scored or not chat.are_kept(model):
                raise
            responders.require_memory(model, source)
        template = files.template_text(own=source.chat_template, fallback=settings.template)
        _require_chat(model, template, chat, partial(_read_tokenizer, source, template), weights=files.weights)


def _read_tokenizer(source: ModelSource, template: str | None) -> Tokenizer:
    tokenizer = source.read_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def _require_chat(
    ref: str, template: str | None, chat: _Chat, read_tokenizer: Callable[[], Tokenizer], *, weights: Path | None = None
) -> None:
    """`weights`: where they lie, if that is known.

    The tokenizer may take seconds to read: that is done only for a hint, and for a template that refuses to go without its tokens.
    """
    if not chat.messages:
        return
    if template is None:
        raise UnsupportedError(
            f"`{ref}` has no chat template, and {chat.reason}",
            hint=f"{_advice(chat, read_tokenizer, weights)}; a base model was tuned with none: {chat.without_template}",
        )
    try:
        render_template(template, chat.messages)
        return
    except UnsupportedError:
        tokenizer = read_tokenizer()
    try:
        tokenizer.render(chat.messages)
    except UnsupportedError as exc:
        raise UnsupportedError(f"`{ref}`: {exc.message}", hint=chat.refused) from exc


def _advice(chat: _Chat, read_tokenizer: Callable[[], Tokenizer], weights: Path | None) -> str:
    """Which template to give to a model that has none: that of one tuned from its weights beside it, else what fits its tokens."""
    for model in chat.models:
        if weights is None or not isinstance(model, str) or not references.names_weights(model):
            continue
        files = references.find_files(model)
        if files.weights.resolve() == weights.resolve() and (name := tuned.template_of(files.provenance)):
            return f"give it the one that `{model}` was tuned with, by `--template {name}` (in Python: `template`)"
    known = templates.choice(read_tokenizer().backend.token_to_id)
    return f"give it the one it was tuned with, by `--template NAME` (in Python: `template`): {known}"
