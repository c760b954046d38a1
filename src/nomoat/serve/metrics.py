"""What the server has done, in the text format of Prometheus. Counts and times only: no prompt, no answer, no address of a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.engine import KvCache
from nomoat.records import Decision, Usage

CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is there to read it
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Metrics(Collector):
    """One server's numbers. Safe to call from several threads."""

    def __init__(
        self, *, num_texts: Callable[[], int], num_waiting: Callable[[], int], num_loaded: Callable[[], int],
        spent_usd: Callable[[], Mapping[str, float]], kv_caches: Callable[[], Mapping[str, KvCache]],
    ) -> None:  # fmt: skip
        """`spent_usd`: by model, what others have taken for its answers, where that is counted. `kv_caches`: see `Models`."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, open files and time of the processor, on Linux
        self._registry.register(self)
        self._num_texts, self._num_waiting, self._num_loaded = num_texts, num_waiting, num_loaded
        self._spent_usd, self._kv_caches = spent_usd, kv_caches
        self._requests = Counter(
            "nomoat_requests",
            "Requests to a model by what became of them: ok, error, or gone (the client went away). "
            "Those refused before a model was chosen are among nomoat_http_errors only.",
            ["model", "outcome"],
            registry=self._registry,
        )
        self._errors = Counter(
            "nomoat_http_errors",
            "Answers to any request with an HTTP status of 400 and above, by that status: refused ones, and failed ones; "
            "a stream that failed later had 200, and clients that left are not counted.",
            ["status"],
            registry=self._registry,
        )
        self._prompt = Counter("nomoat_prompt_tokens", "Tokens of prompts read.", ["model"], registry=self._registry)
        self._new = Counter("nomoat_completion_tokens", "Tokens written.", ["model"], registry=self._registry)
        self._first = Histogram(
            "nomoat_first_token_seconds", "From a request to its first token.", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._whole = Histogram(
            "nomoat_answer_seconds", "From a request to its last token.", ["model"], buckets=SECONDS, registry=self._registry
        )
        self._routed = Counter(
            "nomoat_routed_answers",
            "Answers of a model that chooses (auto), by the side that was asked, local or cloud, and the rule that it was chosen by. "
            "What the cloud failed at and was answered here is counted on both, here as cloud_failed.",
            ["model", "where", "rule"], registry=self._registry,
        )  # fmt: skip

    def collect(self) -> Iterator[Metric]:
        """What is counted elsewhere, and what is there at this moment: a model that is unloaded has no keys and values."""
        yield GaugeMetricFamily("nomoat_answers_under_way", "Texts being written or waiting for their turn.", self._num_texts())
        yield GaugeMetricFamily("nomoat_answers_waiting", "Those of them that wait for their turn.", self._num_waiting())
        yield GaugeMetricFamily("nomoat_models_loaded", "Models in memory.", self._num_loaded())
        words = "USD that answers of the cloud have cost since the server started; counted where the policy has a budget."
        spent = CounterMetricFamily("nomoat_cloud_usd", words, labels=["model"])
        for model, usd in self._spent_usd().items():
            spent.add_metric([model], usd)
        words = "keys and values of a model in memory, told of the first of those that share them"
        told = f"Memory that was given to {words}; those of ended texts are kept."
        used = GaugeMetricFamily("nomoat_kv_cache_bytes", told, labels=["model"])
        most = GaugeMetricFamily("nomoat_kv_cache_max_bytes", f"Memory that may be given to {words}.", labels=["model"])
        for model, cache in self._kv_caches().items():
            used.add_metric([model], cache.used_bytes)
            most.add_metric([model], cache.max_bytes)
        yield from (spent, used, most)

    def count_request(self, model: str, outcome: str) -> None:
        """A request has ended: `ok`, `error` or `gone`."""
        self._requests.labels(model, outcome).inc()

    def count_error(self, status: int) -> None:
        """A request, to whatever path, was answered with an HTTP status of 400 and above."""
        self._errors.labels(str(status)).inc()

    def count_routed(self, model: str, decision: Decision) -> None:
        """`model` has chosen who answers."""
        self._routed.labels(model, decision.where, decision.rule).inc()

    def count_answer(self, model: str, usage: Usage, seconds: float) -> None:
        """A text is whole, so many seconds after its request came."""
        self._count_tokens(model, usage)
        self._first.labels(model).observe(seconds - usage.decode_seconds)
        self._whole.labels(model).observe(seconds)

    def count_left(self, model: str, usage: Usage) -> None:
        """A text was stopped. Of a prompt without an answer's token it is not known how much was read: it is not counted."""
        if usage.completion_tokens:
            self._count_tokens(model, usage)

    def _count_tokens(self, model: str, usage: Usage) -> None:
        self._prompt.labels(model).inc(usage.read_tokens)
        self._new.labels(model).inc(usage.completion_tokens)

    def render(self) -> bytes:
        """The body of /metrics."""
        return generate_latest(self._registry)


class CountErrors:
    """ASGI middleware around all that answers: tells `metrics` of each HTTP status of 400 and above that somebody was told."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = scope["type"] != "http"

        async def counting(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if message["status"] >= 400 and message["status"] != CLIENT_CLOSED_REQUEST:
                    self._metrics.count_error(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            if not begun:
                self._metrics.count_error(500)  # which is answered further out
            raise
