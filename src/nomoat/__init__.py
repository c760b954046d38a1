"""Run, tune and prove open language models on an ordinary PC.

load(ref)                     a model that answers: complete, stream, complete_many, score, embed, close
tune(base, data, name=...)    fine-tunes it on a file or a data frame; the result is named BASE+NAME
evaluate(ref, suite)          its answers to a suite, scored
duel(left, right, suite)      which of two is better, and how sure that is
serve(refs)                   an OpenAI-compatible API, and a page to talk to the model

What they take and give, and what else the command line does, is in modules:

nomoat.records                Message and Request, which a model is asked; Completion, Outcome, Verdict
nomoat.errors                 NomoatError: all that goes wrong, with a `message` and a `hint`
nomoat.asking.spending        Spending: a budget, and prices
nomoat.asking.store           AnswerStore: the answers that are kept
nomoat.judge.suites           load_suite, write_suite
nomoat.judge.run              run_suite: as evaluate, with everything a report needs
nomoat.judge.duel             run_duel, run_duels: as duel, with everything a report needs
nomoat.judge.judged           run_graded, run_judged_duel, run_judged_table: with another model as the judge
nomoat.judge.table            run_table: a leaderboard
nomoat.judge.settings         RunSettings: limit, seed and the like for these
nomoat.judge.verdict          Rules: when a winner is named
nomoat.judge.evidence         circumstances, items: what a result was made with, and all answers
nomoat.judge.report           write_evaluation_report, write_duel_report, write_table_report
nomoat.distil.label           label: a teacher's labels for texts
nomoat.distil.instructions    distil: new tasks that a teacher writes
nomoat.distil.origin          load_seeds, parents_of: whose terms these are under
nomoat.route.router           load_auto: the model `auto`; explain: where a text would go
nomoat.catalog.pull           pull_model, installed, remove
nomoat.catalog.cards          cards: the catalogue
nomoat.tune.export            merged_gguf, lora_gguf
nomoat.serve.app              create_app: the API for a server of your own
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # `typing` takes as long to import as all that precedes `nomoat.__main__`, where Ctrl-C is a traceback
if TYPE_CHECKING:
    from nomoat.judge.duel import duel as duel
    from nomoat.judge.run import evaluate as evaluate
    from nomoat.responder import load as load
    from nomoat.serve.app import serve as serve
    from nomoat.tune.train import tune as tune

_WHERE = {
    "duel": "nomoat.judge.duel",
    "evaluate": "nomoat.judge.run",
    "load": "nomoat.responder",
    "serve": "nomoat.serve.app",
    "tune": "nomoat.tune.train",
}
__all__ = ["__version__", "duel", "evaluate", "load", "serve", "tune"]


def _imported(name: str) -> object:
    """Import each public function when it is first asked for: `import nomoat` loads no engine.

    In place of one whose optional part is not installed its package is given, which says so when it is called: see `callable_package`.
    """
    if name in _WHERE:
        import importlib
        import sys

        from nomoat import extras
        from nomoat.uncut import uncut

        try:
            with uncut():
                return getattr(importlib.import_module(_WHERE[name]), name)
        except ModuleNotFoundError as exc:
            if extras.extra_of(exc) != name:
                raise
            return sys.modules[f"nomoat.{name}"]
    raise AttributeError(f"module 'nomoat' has no attribute {name!r}")


if not TYPE_CHECKING:  # to a type checker any name would be there
    __getattr__ = _imported


def __dir__() -> list[str]:
    return __all__.copy()
