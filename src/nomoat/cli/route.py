"""`nomoat route`: where a text would go and why, a router learned from duels, the policy in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nomoat import bounds, commands, references
from nomoat.cli import answering, completion, console, loading, options
from nomoat.cli.groups import Group
from nomoat.errors import BadFileError, DataError, NomoatError, UsageError
from nomoat.money import dollars
from nomoat.records import Request
from nomoat.words import counted

if TYPE_CHECKING:
    from nomoat.judge.suite import Suite
    from nomoat.responder import Responder
    from nomoat.route.frontier import Estimate, Frontier
    from nomoat.route.in_force import Usable
    from nomoat.route.learned import LearnedRouter
    from nomoat.route.outcomes import Pairs
    from nomoat.route.policy import Policy


def _known_by(value: str | None) -> str | None:
    from nomoat.route.learned import By

    if value is not None:
        bounds.require_one_of("--by", value, get_args(By))
    return value


GoesBy = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="prompt|answer",
        show_default=False,
        callback=_known_by,
        help="Go by the prompt, or by how sure the local model is of its answer. Of one tuned on a table the better of the two is "
        "kept, else it goes by the prompt.",
    ),
]

route = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Send each request where it is answered well enough: recognised private data stays here.

    \b
    Examples:
      nomoat route policy                                   # what is in force, and where it is written
      nomoat route explain "My number is 010-1234-5678"     # where would that go? nothing is sent
      nomoat route learn smollm2-135m+reviews openai:gpt-4o-mini --suite reviews
      nomoat run auto "What is a moat?"                     # ask whoever the router chooses

    The policy is `policy.toml` in NOMOAT_HOME. Without it, everything stays here.
    """,
)


@route.command()
def explain(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help="Or pipe it in (`-` says so), which leaves no trace in the shell.", callback=options.not_piped
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say where a text would go and why. No model is loaded, nothing is sent, the text is not kept.

    \b
    Examples:
      nomoat route explain "What is a moat?"
      nomoat route explain < letter.txt
      nomoat route explain "What is a moat?" --json
    """
    from nomoat.route import router
    from nomoat.route.policy import load_policy

    text, policy = _given(text), load_policy()
    decision = router.explain(text, policy=policy)
    answering.say_notes(policy.notes)
    _say_not_answering(_unloadable(policy))
    if as_json:
        console.print_json(decision)
        return
    console.print_text(f"{decision.where}: {decision.model or 'no model is named'}")
    console.print_text(f"why: {decision.why}")


@route.command()
def learn(
    local: Annotated[
        str,
        typer.Argument(
            metavar="LOCAL", help="The model on this machine, as it was named in the duel.", autocompletion=completion.models_here
        ),
    ],
    cloud: Annotated[str, typer.Argument(metavar="CLOUD", help="The other one.")],
    suites: Annotated[
        list[str], typer.Option("--suite", "-s", help="What they fought over; may be given again.", autocompletion=completion.suites)
    ],
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    instruction: options.Instruction = None,
    by: GoesBy = None,
    as_json: options.AsJson = False,
) -> None:
    """Learn from duels which prompts the local model answers as well. Nothing is sent.

    \b
    Examples:
      nomoat route learn smollm2-135m+reviews openai:gpt-4o-mini --suite reviews
      nomoat route learn smollm2-135m+reviews openai:gpt-4o-mini --suite reviews --by answer
      nomoat route learn smollm2-135m http://127.0.0.1:11434/v1#llama3 --suite a.jsonl --suite b.jsonl

    A router that goes by answers has the local model answer first, and sends away what it is not sure enough of. It is for short
    answers, as the first word comes when the answer is whole. To learn it the local model is asked again.

    A table takes the columns and the instruction it was given in the duel. Of a model on this machine the duel has to be one with this
    nomoat: another may import it otherwise. The figures are of prompts the router had not seen, with
    95 % intervals: how much of the gap between the models it recovers, and what each threshold of the policy would send away. A router
    that is no better than chance is not kept.
    """
    from nomoat.judge.suites import load_suites
    from nomoat.route import outcomes, router
    from nomoat.route.learned import save_router
    from nomoat.route.policy import default_path, load_policy

    policy = load_policy()
    with console.waiting(f"reading {', '.join(suites)}"):
        loaded = load_suites(suites, [local, cloud], input_column=input_column, label_column=label_column, instruction=instruction)
    prompts = {
        suite.sha256: {example.id: router.question_of(Request(messages=example.messages)) for example in suite.examples}
        for suite in loaded
    }
    answering.say_notes(tuple(dict.fromkeys(note for suite in loaded for note in suite.notes)))
    by_questions = _named_by_questions(loaded)
    names = tuple(by_questions.values())
    judge = "MODEL" if any(suite.metric in ("judge", "review") for suite in loaded) else None
    given = {"--input-column": input_column, "--label-column": label_column, "--instruction": instruction, "--judge": judge}
    duel = _duel(local, cloud, suites, given)
    pairs = outcomes.read_pairs(local, cloud, prompts, names=by_questions, duel=duel, has_table=input_column is not None)
    with _opened(local, needed=by == "answer") as model:
        outcomes.require_as_now(pairs, None if model is None else model.digest, duel=duel)
        sure = None
        if model is not None and (by == "answer" or (by is None and model.question is not None)):
            sure = _surenesses(model, loaded, pairs)
    made = _learned(pairs, sure, names, policy.threshold, by)
    folder = save_router(made)
    if as_json:
        told = {"local": local, "cloud": cloud, "suites": names, "by": made.by, "figures": made.figures, "folder": str(folder)}
        console.print_json(told)
    else:
        _print(made)
        console.say(f"kept in {folder}\nto send more or less away, set `threshold` in {default_path()}")
    if (policy.local, policy.cloud) != (local, cloud):
        _say_unused(policy, local, cloud)


@route.command()
def policy(as_json: options.AsJson = False) -> None:
    """Show the policy in force, where each line of it comes from, and what of its budget is spent.

    \b
    Examples:
      nomoat route policy
      nomoat route policy --json

    Days and months are those of UTC. Requests under way count with the most they can cost.
    """
    from nomoat.route import policy as policies
    from nomoat.route.budget import read_spent
    from nomoat.route.in_force import Usable, usable
    from nomoat.route.learned import load_router

    found = policies.load_policy()
    rows = [{"name": name, "value": getattr(found, name), "origin": found.origin(name)} for name in policies.SETTINGS]
    unread = None
    try:
        made = load_router()
        use = Usable(learned=None) if made is None else usable(found, made)
    except BadFileError as error:
        made, unread, use = None, error, Usable(learned=None, why_not=error.message)
    spent = read_spent() if found.has_budget else None
    answering.say_notes(found.notes)
    _say_not_answering(unread or _unloadable(found))
    if as_json:
        console.print_json({"policy": rows, "path": str(policies.default_path()), "router": _facts(made, use), "spent": spent})
        return
    width = max(len(name) for name in policies.SETTINGS)
    for row in rows:
        value = "wherever cloud is asked" if row["name"] == "allowed" and "allowed" not in found.given else _shown(row["value"])
        console.print_text(f"{row['name']:<{width}}  {value}  ({row['origin']})")
    by = ", by how sure the first is of its answer" if made is not None and made.by == "answer" else ""
    origin = f"not in use: {use.why_not}" if use.why_not else "nothing is learned" if made is None else f"learned{by}{use.provided}"
    console.print_text(f"{'router':<{width}}  {'none' if made is None else f'{made.local} or {made.cloud}'}  ({origin})")
    if spent is not None:
        console.print_text(f"{'spent':<{width}}  {dollars(spent.today_usd)} today, {dollars(spent.month_usd)} this month  (UTC)")
    if found.path is None:
        console.say(f"there is no {policies.default_path()}: everything stays here")


def _duel(local: str, cloud: str, suites: Sequence[str], given: Mapping[str, str | None]) -> str:
    """The command whose outcomes are learned from. `given`: values of other options, or None."""
    named = [word for suite in suites for word in ("--suite", suite)]
    others = [word for option, value in given.items() if value is not None for word in (option, value)]
    return commands.as_line(["nomoat", "duel", local, cloud, *named, *others, "--all"])


def _unloadable(policy: Policy) -> NomoatError | None:
    """Why `auto` could not be loaded, as far as that is known beforehand."""
    from nomoat.route.router import require_loadable

    try:
        require_loadable(policy)
    except NomoatError as error:
        return error
    return None


def _say_not_answering(error: NomoatError | None) -> None:
    if error is not None:
        console.say(f"`auto` answers nothing: {error.message}\nhint: {error.hint}")


@contextmanager
def _opened(local: str, *, needed: bool) -> Iterator[Responder | None]:
    """The model on this machine as `auto` loads it, which imports what is not imported yet; None of one that is not to be had, or
    whose weights are elsewhere, unless it is `needed`."""
    from nomoat import responder

    if not needed and not references.names_weights(local):
        yield None
        return
    importing, _ = loading.loading_bars(local)
    with ExitStack() as stack:
        model = None
        with nullcontext() if needed else suppress(NomoatError), loading.bars(importing) as (show,):
            model = stack.enter_context(responder.load(local, progress=show))
        yield model


def _surenesses(model: Responder, suites: Sequence[Suite], found: Pairs) -> list[float]:
    """How sure the model is of its answer to each pair's prompt, in a chat, as `auto` is asked. Equal prompts are asked once."""
    from nomoat.route.cascade import surenesses
    from nomoat.route.router import question_of

    asked = [
        Request(messages=example.messages, max_new_tokens=suite.max_new_tokens, stop=suite.stop)
        for suite in suites
        for example in suite.examples
    ]
    by_prompt = {question_of(request): request for request in asked}
    prompts = list(dict.fromkeys(pair.prompt for pair in found.pairs))
    with console.waiting(f"asking {model.ref} how sure it is of {counted(len(prompts), 'answer')}") as progress:
        sure = dict(zip(prompts, surenesses(model, [by_prompt[prompt] for prompt in prompts], progress), strict=True))
    return [sure[pair.prompt] for pair in found.pairs]


def _named_by_questions(suites: Sequence[Suite]) -> dict[str, str]:
    """The first name of each suite, by the sha256 of its questions."""
    names: dict[str, str] = {}
    for suite in suites:
        first = names.setdefault(suite.sha256, suite.name)
        if first != suite.name:
            console.say(f"`{suite.name}` has the questions of `{first}`, and they count once")
    return names


def _learned(found: Pairs, sure: list[float] | None, suites: tuple[str, ...], threshold: float, by: str | None) -> LearnedRouter:
    """By what was wished for, or the better of the two where it is known how sure the model is of its answers."""
    from nomoat.route.learned import learn

    made: list[LearnedRouter] = []
    failure: DataError | None = None
    with console.waiting(f"learning from {len(found.pairs):,} prompts") as progress:
        for shown in [None] if sure is None else [sure] if by == "answer" else [sure, None]:
            try:
                made.append(learn(found, sure=shown, suites=suites, threshold=threshold, progress=progress))
            except DataError as error:
                failure = failure or error
    if not made:
        assert failure is not None
        raise failure
    return max(made, key=lambda one: one.figures.auc)


def _given(text: str | None) -> str:
    text = console.piped() if text is None else text
    if not text.strip():
        raise UsageError("there is no text to explain", hint='nomoat route explain "TEXT", or pipe it in')
    return text


def _print(made: LearnedRouter) -> None:
    figures = made.figures
    console.print_text(
        f"`{made.local}` is as good as `{made.cloud}` on {figures.num_local_as_good:,} of {figures.num_prompts:,} prompts"
    )
    by = f"by how sure `{made.local}` is of its answer, " if made.by == "answer" else ""
    console.print_text(f"{by}on prompts the router had not seen:")
    console.print_text(f"  AUC {figures.auc:.2f} [{figures.auc_low:.2f}, {figures.auc_high:.2f}] (chance is 0.50)")
    _print_gap(figures.frontier)
    console.print_text(
        f"  at the threshold {figures.threshold:.2f}, {100 * figures.share_local:.1f} % stay here, and the mean score is "
        f"{figures.routed_score:.3f} (all local {figures.local_score:.3f}, all cloud {figures.cloud_score:.3f})"
    )
    _print_settings(figures.frontier)


def _print_gap(frontier: Frontier) -> None:
    """How much of the gap between the models is recovered, beside what sending prompts away at random does."""
    gap = f"{frontier.gap.value:+.3f} [{frontier.gap.low:+.3f}, {frontier.gap.high:+.3f}]"
    if frontier.apgr is None or frontier.cpt50 is None or frontier.cpt80 is None:
        told = "is lower" if frontier.gap.high < 0 else "cannot be told to be higher"
        console.print_text(f"  the cloud's mean score {told} ({gap}): there is no gap to recover, so no APGR and no CPT")
        return
    apgr = f"{frontier.apgr.value:.2f} [{frontier.apgr.low:.2f}, {frontier.apgr.high:.2f}]"
    console.print_text(f"  the cloud's mean score is higher by {gap}; of this gap")
    console.print_text(f"  APGR {apgr} is recovered, on average over all shares sent away (at random 0.50)")
    console.print_text(f"  CPT50: {_percent(frontier.cpt50)} sent away recover half (at random 50 %)")
    console.print_text(f"  CPT80: {_percent(frontier.cpt80)} sent away recover four fifths (at random 80 %)")


def _print_settings(frontier: Frontier) -> None:
    """The table to choose `threshold` from."""
    console.print_text(f"\nthreshold  sent away  mean score            at random{'' if frontier.apgr is None else '  gap recovered'}")
    for row in frontier.settings:
        score = f"{row.score.value:.3f} [{row.score.low:.3f}, {row.score.high:.3f}]"
        recovered = "" if row.pgr is None else f"  {_percent(row.pgr)}"
        console.print_text(f"{row.threshold:>9.2f}  {100 * row.share_cloud:>7.1f} %  {score:<20}  {row.random_score:>9.3f}{recovered}")


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _say_unused(policy: Policy, local: str, cloud: str) -> None:
    from nomoat.route.policy import default_path

    console.say(
        f"not in use yet: the policy names {_shown(policy.local)} and {_shown(policy.cloud)}\n"
        f'hint: write local = "{local}" and cloud = "{cloud}" into {default_path()}'
    )


def _facts(made: LearnedRouter | None, use: Usable) -> dict[str, Any] | None:
    """`why_not`: why the policy does not use it; empty if it does, if `provided` holds. One that cannot be read has that alone."""
    told = {"why_not": use.why_not, "provided": use.provided.removeprefix(", if ")}
    if made is None:
        return {"local": None, "cloud": None, "suites": [], "by": None, "figures": None, **told} if use.why_not else None
    return {"local": made.local, "cloud": made.cloud, "suites": made.suites, "by": made.by, "figures": made.figures, **told}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"  # without an exponent
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
