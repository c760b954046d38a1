"""Every error nomoat raises on purpose. Each says what happened, with which value, and what to do.

NomoatError                  the base: the command line prints it and exits 1
├── UsageError               a flag, a reference or a request that cannot be meant
│   ├── IncompleteError      what cannot be left out was not given; the command line exits with 2
│   ├── BadRequestError      an HTTP request that cannot be meant; names the field
│   ├── SettingError         a setting of this machine that cannot be meant, or a key that is not set
│   └── SchemaError          a JSON schema that no answer can be held to
├── UnknownModelError        no such model, adapter or suite; names the nearest ones
├── BadFileError             a file that is there but cannot be read as what it should be
│   └── DamagedError         a database of ours that something else has changed
├── DataError                a row, column or label of the user's data
├── NotEnoughMemoryError     would not fit into this machine
│   └── CacheExceededError   one text's keys and values need more than there is for all
├── NotEnoughDiskError       the disk is full or will be
├── NotWritableError         a file or folder that cannot be written
├── ContextExceededError     prompt and answer do not fit into the model's context
├── UnsupportedError         this model or engine cannot do that
│   └── NoTemplateError      a model without a chat template is asked in a chat
├── MissingExtraError        an optional part is not installed
├── OfflineError             a connection outside was refused, because offline or not asked for
│   └── RedirectedError      a server sends requests on to another one, which nobody named
├── DownloadError            a download did not arrive whole
│   ├── NotThereError        the server has no such file
│   └── ChecksumError        it arrived, but it is not the file its card names
├── BudgetReachedError       the next call could cost more than is left of what may be spent
├── RemoteError              a server answered with an error
│   └── PolicyChangedError   not sent to a server: by the time of its turn the policy kept it here
├── NoThreadError            the system lets this process begin no more threads
├── ForkedError              this process is a fork of one that has run a model, and cannot
├── BusyError                the server has more to do already than it keeps waiting
├── StoppedError             nobody waits for the answer any more, its model was closed, or the server is shutting down
└── WorkerError              a worker, or the cluster it runs on, cannot be had or died; or a process that imports crashed
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from nomoat.money import dollars

if TYPE_CHECKING:
    from nomoat.records import Decision

Fate = Literal["final", "rejected", "lost"]
REFUSED_AS_ASKED = (400, 413, 422, 451)  # HTTP statuses: a bad request, one too large, one that cannot be meant, one that is blocked
# Others are of keys, limits and servers; but OpenRouter and xAI say 403 of a text that is moderated, llama.cpp 500 of one too large.
REFUSED_OR_FAILED = (403, 500)
ANSWERED = re.compile(r"` answered \d+: ")  # before it stands who did
# The words that say so have the text for their subject: an account is flagged, too, and a model or a queue too long.
TEXT = (
    r"\b(?:content|conversation|document|image|input|message|payload|prompt|query|request|sequence|text)s?"
    r"(?: length)?(?: \([^()]{0,80}\))?"
)
BEEN = r"(?: (?:is|are|was|were|has|have|had|been)){0,2}"
BARRED = "(?:blocked|denied|refused|rejected)"
RULES = r"[ \w'-]{0,40}\b(?:moderation|safety|content[ _-](?:polic|filter)|(?:content|usage) (?:guideline|polic))"
OF_WHAT_WAS_ASKED = re.compile(
    rf"{TEXT}{BEEN} flagged\b"
    rf"|(?:^|{TEXT}{BEEN} )(?:(?:may )?violat(?:es?|ed){RULES}|{BARRED} (?:by|as a result of|because of|due to){RULES})"
    r"|^content policy violation\b"
    rf"|{BARRED} by(?: \w+){{0,3}} content[ _-](?:polic|filter)"
    rf"|{TEXT} (?:(?:is|are) too (?:big|large|long)\b(?!.{{0,40}}\b(?:machine|memory)\b)|exceeds?(?: [^\s.]+){{0,3}} context\b)"
    r"|\b(?:content_filter|content_policy\w*|moderation_blocked)\b",
    re.IGNORECASE,
)
# For such texts an account is closed, too: then no other text fares better. That one may be, or forbids a text, is none such.
AN_ACCOUNT = "(?:account|key|organi[sz]ation|project|team|user)"
ACCOUNT = rf"{AN_ACCOUNT}s?\b(?! {TEXT})"
CLOSED = r"(?:banned|blocked|closed|deactivated|disabled|locked|restricted|revoked|suspended|terminated)\b"
YOURS = rf"\b(?:the|this|your) (?:\w+ ){{0,2}}{ACCOUNT}"
IT_BEGINS = rf"(?:^|[.:;,] )(?:\w+ )?{AN_ACCOUNT}\b"  # "Account is disabled", "API key has been revoked"
NO_THREAT = "(?!if|might|may|could|can|will|would|who|which|that|not been)"
OF_AN_ACCOUNT = re.compile(
    rf"(?:{YOURS}|{IT_BEGINS})(?: {NO_THREAT}[^\s.:;,]+){{0,6}}? (?:is|are|was|were|been|remains)(?: (?!not|to)\w+){{0,2}}? {CLOSED}"
    rf"|\b{CLOSED} {YOURS}|{IT_BEGINS} {CLOSED}",
    re.IGNORECASE,
)


class NomoatError(Exception):
    """A failure the user can understand: `message` says what and with which value, `hint` what to do, in a traceback too.

    `at`: of several texts that were given, the one it is about, counted from 0; its message names it, too. `bytes_out` is what was
    sent in vain, for the answer that did not come, to a server that is not on this machine; `may_be_billed` says whether a server may
    take money for that answer.
    """

    at: int | None = None
    bytes_out = 0
    may_be_billed = False
    _hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def on_the_wire(self) -> str:
        """What a server tells its client."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def hint(self) -> str | None:
        """What to do; None if there is nothing to say. It is a note of the exception as well (PEP 678), the first one."""
        return self._hint

    @hint.setter
    def hint(self, hint: str | None) -> None:
        others = [note for note in getattr(self, "__notes__", ()) if note != _note(self._hint)]
        self._hint = hint
        self.__notes__ = others if hint is None else [_note(hint), *others]

    def begin_with(self, words: str) -> None:
        """Put these words before its message."""
        self.message = f"{words}: {self.message}"
        self.args = (self.message,)

    def __reduce__(self) -> tuple[Any, ...]:
        """Whatever its `__init__` takes, an error can be sent from one process to another, and copied. A copy has no traceback and no
        cause, and so holds nothing that was in memory when it was raised."""
        return _rebuild, (type(self), self.args, self.__dict__)


@contextmanager
def about(name: str, at: int, count: int) -> Iterator[None]:
    """What is wrong with `name[at]` itself, and is raised within, says so where there are several. What befalls others as well, as a
    wrong key, a closed model or want of memory, is raised as it is."""
    try:
        yield
    except NomoatError as error:
        if count == 1 or not is_of_what_was_asked(error):
            raise
        named = copy.copy(error)  # others may be told the same object
        named.at = at
        named.begin_with(f"`{name}[{at}]`")
        raise named.with_traceback(error.__traceback__) from error.__cause__  # not from `error`, which says the same


def is_of_what_was_asked(error: NomoatError) -> bool:
    """Whether other texts may fare better, as far as that is sure."""
    if isinstance(error, RemoteError):
        if error.status in REFUSED_OR_FAILED:
            said = ANSWERED.split(error.message, maxsplit=1)[-1]
            is_named = OF_WHAT_WAS_ASKED.search(f"{said} {error.code or ''}") is not None
            return is_named and not OF_AN_ACCOUNT.search(said)
        return error.status in REFUSED_AS_ASKED
    return isinstance(error, UsageError | UnsupportedError | ContextExceededError | CacheExceededError) and not isinstance(
        error, SettingError
    )


def _note(hint: str | None) -> str:
    return f"hint: {hint}"


def _rebuild(kind: type[NomoatError], arguments: tuple[object, ...], attributes: dict[str, object]) -> NomoatError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    if notes := getattr(error, "__notes__", None):
        error.__notes__ = [*notes]  # of its own
    return error


class UsageError(NomoatError):
    """A flag, a model reference or a request that cannot be meant."""


class IncompleteError(UsageError):
    """What cannot be left out was not given: the command line exits with 2, as where the parser itself misses something."""


class BadRequestError(UsageError):
    """An HTTP request that cannot be meant. `param` names the field, `status` is the HTTP status."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class SettingError(UsageError):
    """A setting of this machine that cannot be meant, or a key that is not set: of a server nothing that its client asked for."""


class SchemaError(UsageError):
    """A JSON schema that is none or, with `is_unsupported`, one that answers cannot be held to here."""

    def __init__(self, message: str, *, hint: str | None = None, is_unsupported: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_unsupported = is_unsupported
        self.field = "response_format"  # of OpenAI's requests, where it was


class UnknownModelError(NomoatError):
    """No model, adapter or suite of that name."""


class BadFileError(NomoatError):
    """A file that exists but is not what it should be: truncated, of another format, or lying about its sizes."""


class DamagedError(BadFileError):
    """A database of ours holds what we cannot have written."""


class DataError(NomoatError):
    """A row, a column or a label of the user's data; the message names file and line."""


class NotEnoughMemoryError(NomoatError):
    """The model at this context would not fit into this machine's memory."""


class CacheExceededError(NotEnoughMemoryError):
    """One text needs more memory for its keys and values than there is for all: shorter ones are answered."""


class NotEnoughDiskError(NomoatError):
    """The disk is full, or would be."""


class NotWritableError(NomoatError):
    """A place that nomoat has to write to, and may not or cannot."""


SET_CONTEXT = "`context_tokens` where `nomoat config` says it is set"
NO_TEMPLATE = "this model has no chat template: it completes texts, it does not chat"


class ContextExceededError(NomoatError):
    """The prompt, or the prompt and the answer asked for, are longer than the model's context. Nothing was cut."""

    def __init__(
        self, *, prompt_tokens: int | None, max_new_tokens: int, context_tokens: int, is_shortened: bool = False,
        is_window: bool = False,
    ) -> None:  # fmt: skip
        """`prompt_tokens`: None if they are so many more than the context that they were not all counted; `is_shortened`: the model's
        own context is longer, and the user asked for less; `is_window`: it ends with its window."""
        raised = f"raise -c (in Python: `context_tokens`), or {SET_CONTEXT}"
        longer = raised if is_shortened else "choose a model with a longer context"
        self.was_counted = prompt_tokens is not None
        self.prompt_tokens = context_tokens + 1 if prompt_tokens is None else prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.context_tokens = context_tokens
        subject = "the prompt is too long: it" if self.prompt_tokens >= context_tokens else "the prompt"
        super().__init__(
            f"{subject} has {self.tokens_said} tokens and the answer may have {max_new_tokens:,}, "
            f"but the model's context is {context_tokens:,} tokens" + (", the window that its tokens see" if is_window else ""),
            hint=f"shorten the prompt, ask for fewer new tokens, or {longer}",
        )

    @property
    def tokens_said(self) -> str:
        """The prompt's, in words."""
        return f"{self.prompt_tokens:,}" if self.was_counted else f"more than {self.context_tokens:,}"

    @property
    def on_the_wire(self) -> str:
        """The message in OpenAI's and vLLM's words: LiteLLM, CrewAI and others know the error by them, and some read the numbers.

        Of a prompt's fault also in Anthropic's ("prompt is too long: 5 tokens > 4 maximum"), by which LangChain knows it, and Claude
        Code, which then sums the conversation up. Where not all was counted, the numbers are those that it has at least, in the same
        words, and "or more" stands after them.
        """
        more = "" if self.was_counted else " or more"
        fault = f" The prompt is too long: {self.prompt_tokens} tokens > {self.context_tokens - 1} maximum."  # one is the answer's
        if self.prompt_tokens < self.context_tokens:
            fault = ""
        return (
            f"This model's maximum context length is {self.context_tokens} tokens. However, you requested "
            f"{self.prompt_tokens + self.max_new_tokens} tokens ({self.prompt_tokens} in the messages, {self.max_new_tokens} in the "
            f"completion){more}. Please reduce the length of the messages or completion.{fault}"
        )


class UnsupportedError(NomoatError):
    """This model or engine cannot do what was asked."""


class NoTemplateError(UnsupportedError):
    """A model without a chat template was asked in a chat."""

    @property
    def on_the_wire(self) -> str:
        """Without what only who started the server can do."""
        return f"{self.message}; use `POST /v1/completions`, or another model"


class MissingExtraError(NomoatError):
    """An optional part of nomoat is not installed."""

    def __init__(self, *, extra: str, what: str) -> None:
        from nomoat import commands

        super().__init__(f"{what} needs nomoat's `{extra}` extra", hint=commands.installing_extra(extra))


class OfflineError(NomoatError):
    """A connection to another machine was refused by nomoat itself."""


class RedirectedError(OfflineError):
    """A server sends requests on to another one, which nobody named: by a redirect, which is not followed, or itself, as it says."""


class DownloadError(NomoatError):
    """A download did not arrive whole."""


class NotThereError(DownloadError):
    """The server has no such file."""


class ChecksumError(DownloadError):
    """A download arrived, but it is not the file that was promised."""


class BudgetReachedError(NomoatError):
    """The next call could cost more than is left of what may be spent; it was not made."""

    def __init__(self, *, max_usd: float, spent_usd: float, next_usd: float, kept_usd: float = 0.0) -> None:
        kept = f", {dollars(kept_usd)} is kept for who is asked next" if kept_usd else ""
        super().__init__(
            f"the budget of {dollars(max_usd)} is reached: {dollars(spent_usd)} is spent{kept}, and the next call may cost "
            f"{dollars(next_usd)}",
            hint="what was answered is kept; the same again with a higher --max-cost (in Python: `max_cost_usd`) goes on from there",
        )


class RemoteError(NomoatError):
    """A server answered with an error, or with something that is no answer.

    `fate`: "rejected" if the server did no work and may do it later, "lost" if it may have worked (and may have billed) and the
    answer did not arrive whole; asking again may help with both, and not with "final". `wait_seconds` is what it asked us to wait.
    `status` is its HTTP status, or the one that says what its words say, `code` its own name for the error and `param` that of the
    field it refused, where it gave them. `was_asked_often`: it refused each time that it was asked, which was as often as we ask.
    `ended_bare`: its answer ended without why, as another question may have ended it.
    """

    was_asked_often = False
    ended_bare = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        fate: Fate = "final",
        wait_seconds: float | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.param = param
        self.fate = fate
        self.may_be_billed = fate == "lost" or (fate == "final" and status is None)
        self.wait_seconds = wait_seconds


class PolicyChangedError(RemoteError):
    """What waited for its turn at a server, or for another try: what is in force by then keeps it here, as `decision` says."""

    def __init__(self, message: str, *, hint: str | None, status: int, decision: Decision) -> None:
        super().__init__(message, hint=hint, status=status)
        self.decision = decision


class NoThreadError(NomoatError):
    """The system lets this process begin no more threads."""


class ForkedError(NomoatError):
    """This process is a fork of one that had run or tuned a model, and has none of the threads that do."""


class BusyError(NomoatError):
    """The server has more to do already than it keeps waiting; asking again later may help."""


class StoppedError(NomoatError):
    """Work that was ended before its end: whoever asked has gone, the model was closed, or the server is shutting down."""


class WorkerError(NomoatError):
    """A worker process, or the cluster it should run on, cannot be had, or died. So did a process that imports a model, and was not
    killed for want of memory."""
