"""Whether a model may be used commercially, computed over everything it was made from. Not legal advice.

The strictest link governs: one "no" makes the chain "no", else one unknown makes it "unknown", else conditions add up.
What this does not cover: the corpora of pre-training, patents, data protection, and what a court would say of output terms.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, get_args

from nomoat import bounds
from nomoat.catalog import cards
from nomoat.errors import UsageError
from nomoat.providers import PROVIDERS, answering
from nomoat.records import Commercial, Confirmation, Licence, ModelCard, Parent, known_fields
from nomoat.words import listed

CONDITIONS: Final = "yes, if"
RESTRICTIONS: Final = "yes, with use restrictions"
BOTH: Final = "yes, if, with use restrictions"
STRICTEST_FIRST: tuple[Commercial, ...] = ("no", "unknown", BOTH, CONDITIONS, RESTRICTIONS, "yes")
REFUSALS: tuple[Commercial, ...] = ("no", "unknown")
UNKNOWN_BASE = Parent(kind="base", name="weights of unknown origin", licence="unknown")
STATED = "stated by the user"  # a source
OWN = "own"  # the terms of the user's own data
Role = Literal["weights", "base", "data", "teacher"]
OUTPUT_TERMS = {"llama2": "llama2-output", "llama3": "llama3-output"}  # of what learns from its output and is not made from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One thing a model was made from and the terms on it. `role` "weights" is the model itself.

    `confirmed` is "read" only if both the terms and that they apply here were seen in a source.
    """

    role: Role
    name: str
    licence: str
    title: str
    commercial: Commercial
    conditions: tuple[str, ...]
    source: str
    confirmed: Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The answer for the whole chain and every link that leads to it."""

    commercial: Commercial
    links: tuple[Link, ...]

    @property
    def deciding(self) -> tuple[Link, ...]:
        """The links that make the verdict what it is: as strict as the whole, or one of the two things that it says."""
        as_said = (CONDITIONS, RESTRICTIONS, BOTH) if self.commercial == BOTH else (self.commercial,)
        return tuple(link for link in self.links if link.commercial in as_said)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What a commercial user has to keep, over all links that allow it."""
        return tuple(dict.fromkeys(text for link in self.allowing for text in link.conditions))

    @property
    def allowing(self) -> tuple[Link, ...]:
        """The links that allow it, conditions or not."""
        return tuple(link for link in self.links if link.commercial not in REFUSALS)

    @property
    def unconfirmed(self) -> tuple[Link, ...]:
        """Links whose terms nobody has checked yet."""
        return tuple(link for link in self.links if link.confirmed != "read")


@cache
def licences() -> dict[str, Licence]:
    """Every licence of the catalogue by id. Raises ValueError for one that cannot be, which is a bug of ours."""
    text = resources.files("nomoat.catalog").joinpath("licences.toml").read_text(encoding="utf-8")
    return parse_licences(text)


def parse_licences(text: str) -> dict[str, Licence]:
    """Licences from TOML, by id."""
    return {name: _parsed(name, row) for name, row in tomllib.loads(text).items()}


def _parsed(name: str, row: dict[str, Any]) -> Licence:
    conditions, of_weights = (row.get(key, []) for key in ("conditions", "conditions_of_weights"))
    try:
        made = Licence(id=name, **{**row, "conditions": tuple(conditions), "conditions_of_weights": tuple(of_weights)})
    except TypeError as exc:  # a key that is missing, or is none
        raise ValueError(f"licences.toml, {name}: {exc}") from exc
    for holds, why in (
        (made.commercial in STRICTEST_FIRST, f"commercial is {made.commercial!r}"),
        (made.confirmed in get_args(Confirmation), f"confirmed is {made.confirmed!r}"),
        (_are_texts(conditions) and _are_texts(of_weights), "conditions are no list of texts"),
        (_are_texts([made.title, made.source]), "title or source is no text"),
    ):
        if not holds:
            raise ValueError(f"licences.toml, {name}: {why}")
    return made


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value for value in values)


def licence(licence_id: str) -> Licence:
    """The licence of that id; terms nobody here knows are "unknown" under the name given."""
    known = licences().get(licence_id)
    if known is not None:
        return known
    return Licence(id=licence_id, title=licence_id, commercial="unknown", source="none found", confirmed="memory")


def chain(card: ModelCard | None) -> ChainVerdict:
    """The verdict on a card of the catalogue; without one, on weights nomoat knows nothing of."""
    return _verdict(_links(card) if card is not None else [_link(UNKNOWN_BASE)])


def chain_of_all(*verdicts: ChainVerdict) -> ChainVerdict:
    """The verdict on what was made from all of these."""
    return _verdict(link for found in verdicts for link in found.links)


def require_known(licence_id: str) -> str:
    """The id as the catalogue writes it. Raises UsageError for one that is not there: mistyped, it would make every verdict "unknown"
    without a word."""
    bounds.require_text(licence_id, "a licence's name")
    found = licence_id.lower()
    if found not in licences():
        meant = _meant(found)
        raise UsageError(
            f"no terms are called `{licence_id}`",
            hint=f"{f'did you mean `{meant}`? ' if meant else ''}those known are: {', '.join(licences())}; all others are `unknown`",
        )
    return found


def _meant(given: str) -> str | None:
    """The one id with these letters and digits, which may end in a version that was not given. Another letter or digit is another
    licence: that of Llama 3.1 is not that of 3.2."""
    bare = _bare(given)
    found = [one for one in licences() if bare and _bare(one).startswith(bare) and not _bare(one)[len(bare) :].strip("0123456789")]
    return found[0] if len(found) == 1 else None


def _bare(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def teacher(ref: str) -> Parent:
    """What a model reference is as a teacher: whose terms bind what its output trains. Unknown if nomoat cannot tell."""
    provider, card = answering(ref), cards.find(ref)
    if provider is not None:
        return Parent(kind="teacher", name=ref, licence=provider.terms)
    if card is not None:
        return Parent(kind="teacher", name=ref, licence=card.licence, source=card.licence_source, confirmed=card.licence_confirmed)
    return Parent(kind="teacher", name=ref, licence="unknown")


def taught_by(ref: str, found: ChainVerdict | None) -> tuple[Parent, ...]:
    """The teacher `ref`, with all it was made from itself, as parents of what it teaches. `found` is its own chain, where known.

    People publish what it teaches: `ref` names no folder of this machine (`references.shown_name`).
    """
    if found is None:
        return (teacher(ref),)
    return tuple(
        Parent(
            kind="teacher",
            name=ref if link.name == ref else f"{ref} ({link.role} {link.name})",
            licence=link.licence,
            source=link.source,
            confirmed=link.confirmed,
        )
        for link in found.links
        if link.licence != OWN
    )


def stated_data(name: str, licence_id: str) -> Parent:
    """Data of that name on the user's word for its terms: nobody else has seen that they apply. Nothing is said of the user's own."""
    word = "" if licence_id == OWN else STATED
    return Parent(kind="data", name=name, licence=licence_id, source=word, confirmed="memory")


def for_assistant(parents: Iterable[Parent], writer: str | None = None) -> tuple[Parent, ...]:
    """These parents where what they wrote is to train a general assistant, which competes with those of every provider: the terms of a
    provider are then those for that, also where the user stated them of a gateway, or by hand of the `writer`. What a teacher learned
    from itself stays."""
    forbidding = _assistant_terms()
    return tuple(
        replace(parent, licence=forbidding[parent.licence])
        if parent.kind == "teacher"
        and parent.licence in forbidding
        and (parent.source == STATED or parent.name == writer or parent.licence == teacher(parent.name).licence)
        else parent
        for parent in parents
    )


def with_stated(parents: Iterable[Parent], licence_id: str) -> tuple[Parent, ...]:
    """These parents, with the user's word for the terms that nomoat does not know. Raises UsageError where it knows them all, for
    "own", which no model's terms are, and what `require_known` raises."""
    licence_id = require_known(licence_id)
    if licence_id == OWN:
        raise UsageError(
            f"`{OWN}` is for data of yours, and what a model writes has the terms of the model",
            hint="name the terms of the model that answers there, such as `apache-2.0`",
        )
    found = tuple(parents)
    if all(_is_known(parent.licence) for parent in found):
        known = ", ".join(dict.fromkeys(f"{parent.name}: {licence(parent.licence).title}" for parent in found))
        raise UsageError(
            f"the terms are known, and `{licence_id}` cannot stand in for them: {known}",
            hint="leave it out: it is for terms that nomoat cannot know, such as those of a server",
        )
    return tuple(
        parent if _is_known(parent.licence) else replace(parent, licence=licence_id, source=STATED, confirmed="memory")
        for parent in found
    )


def as_known_now(parents: Iterable[Parent]) -> tuple[Parent, ...]:
    """These parents, as some nomoat wrote them, with the terms of teachers that are known now; "own", which no model's terms are, is
    unknown. Terms for a general assistant stay, as do those that only a newer nomoat knows.
    """
    return tuple(_as_known_now(parent) if parent.kind == "teacher" else parent for parent in parents)


def _as_known_now(parent: Parent) -> Parent:
    known = teacher(parent.name)
    if parent.licence not in licences():
        return parent
    if not _is_known(known.licence):
        return known if parent.licence == OWN else parent
    return replace(known, licence=parent.licence) if parent.licence == _assistant_terms().get(known.licence) else known


def _assistant_terms() -> dict[str, str]:
    """By a provider's terms, those for what is to train a general assistant."""
    return {one.terms: one.assistant_terms for one in PROVIDERS.values()}


def _is_known(licence_id: str) -> bool:
    return licence_id != "unknown" and licence_id in licences()


def of_parents(parents: Iterable[Parent]) -> ChainVerdict:
    """The verdict on data made from these."""
    return _verdict(_link(parent) for parent in parents)


def in_short(found: ChainVerdict) -> str:
    """The verdict in a few words, and the terms that decide it: data of the user's own do beside no other."""
    deciding = [link for link in found.deciding if link.licence != OWN] or found.deciding
    return f"{found.commercial} ({', '.join(dict.fromkeys(link.title for link in deciding))})"


def for_others(found: ChainVerdict) -> ChainVerdict:
    """The same in words for people whom a file is passed on to: the maker's own data are not theirs."""
    title, source = "the maker's own data", "the maker's own, where no other terms were stated"
    return replace(
        found, links=tuple(replace(link, title=title, source=source) if link.licence == OWN else link for link in found.links)
    )


def use_line(found: ChainVerdict) -> str:
    """The verdict in one line."""
    return f"commercial use: {found.commercial}{', in part unconfirmed' if found.unconfirmed else ''}"


def reasons(found: ChainVerdict) -> list[str]:
    """Why not, and under which conditions, each with what it is a condition of: "its output" is that of the link.

    The conditions of all other links are told beside a "no" or "unknown", too: they remain where what is unknown becomes known, and
    hold for other use than commercial.
    """
    why = found.deciding if found.commercial in REFUSALS else ()
    whose: dict[str, list[str]] = {}
    for link in found.allowing:
        for text in link.conditions:
            whose.setdefault(text, []).append(_named_link(link))
    return [
        *(f"because of {_named_link(link)}: {'; '.join(link.conditions) or link.title}" for link in why),
        *(f"condition of {', '.join(dict.fromkeys(names))}: {text}" for text, names in whose.items()),
        *_not_together(found.links),
    ]


def _not_together(links: Iterable[Link]) -> Iterator[str]:
    """That terms which are to be those of what is made, and others that go along with it, may both be impossible to keep."""
    shared, along = dict[str, str](), dict[str, str]()
    for link in links:
        terms = licence(link.licence)
        if terms.share_alike:
            shared.setdefault(terms.share_alike, link.title)
        elif terms.goes_along and link.role in ("weights", "base"):
            along.setdefault(terms.id, link.title)
    if shared and len(shared) + len(along) > 1:
        together = listed([*shared.values(), *along.values()])
        yield f"note: {together} may not be kept together by who publishes the result: each asks for its own terms on it; ask a lawyer"


def verdict_lines(found: ChainVerdict) -> list[str]:
    """The verdict, and its reasons or conditions."""
    return [use_line(found), *(f"  {reason}" for reason in reasons(found))]


def chain_lines(found: ChainVerdict) -> list[str]:
    """The verdict, its reasons or conditions, and every link with its source."""
    lines = [*verdict_lines(found), "chain:"]
    for link in found.links:
        mark = "" if link.confirmed == "read" else ", UNCONFIRMED"
        lines += [f"  {_named_link(link)}: {link.title} -> {link.commercial}", f"    source{mark}: {link.source}"]
    return lines


def _named_link(link: Link) -> str:
    """In words that name its role, too."""
    return f"{link.role} {link.name}" if link.role != "weights" else f"{link.name} itself"


def as_dict(found: ChainVerdict) -> dict[str, Any]:
    """A verdict as plain data, for `--json` and `provenance.json`; `from_dict` reads it back."""
    return {"commercial": found.commercial, "conditions": list(found.conditions), "links": [asdict(link) for link in found.links]}


def from_dict(stored: dict[str, Any]) -> ChainVerdict:
    """The verdict a `provenance.json` holds, computed again from its links, with the conditions that the catalogue has now: it may be
    of an earlier nomoat. Raises KeyError or TypeError if it is none."""
    links = [known_fields(Link, {**link, "conditions": tuple(link["conditions"])}) for link in stored["links"]]
    known = licences()
    return _verdict(
        replace(link, conditions=_conditions(known[link.licence], link.role)) if link.licence in known else link for link in links
    )


def _verdict(links: Iterable[Link]) -> ChainVerdict:
    unique = tuple(dict.fromkeys(_for_what_learns(tuple(links))))
    said = {link.commercial for link in unique}
    strictest = min(said, key=STRICTEST_FIRST.index)
    return ChainVerdict(commercial=BOTH if strictest == CONDITIONS and RESTRICTIONS in said else strictest, links=unique)


def _for_what_learns(links: Sequence[Link]) -> Iterator[Link]:
    """What Llama 2 wrote may improve no model but Llama 2 and what is made from it, and so with Llama 3: terms depend on who
    learns."""
    made_from = {link.licence for link in links if link.role in ("weights", "base")}
    its_own = {output: terms for terms, output in OUTPUT_TERMS.items()}
    for link in links:
        terms = its_own.get(link.licence, link.licence)
        if terms in OUTPUT_TERMS and link.role in ("data", "teacher"):
            due = terms if terms in made_from else OUTPUT_TERMS[terms]
            yield _make_link(link.role, link.name, due, link.source, link.confirmed)
        else:
            yield link


def _links(card: ModelCard, *, is_base: bool = False) -> Iterator[Link]:
    yield _make_link("base" if is_base else "weights", card.id, card.licence, card.licence_source, card.licence_confirmed)
    for parent in card.parents:
        base = cards.find(parent.name) if parent.kind == "base" else None
        if base is not None:
            yield from _links(base, is_base=True)
        else:
            yield _link(parent)


def _link(parent: Parent) -> Link:
    return _make_link(parent.kind, parent.name, parent.licence, parent.source, parent.confirmed)


def _conditions(terms: Licence, role: str) -> tuple[str, ...]:
    return terms.conditions + (terms.conditions_of_weights if role in ("weights", "base") else ())


def _make_link(role: Role, name: str, licence_id: str, source: str, confirmed: Confirmation) -> Link:
    terms = licence(licence_id)
    applies = confirmed if source else terms.confirmed  # without a source of its own a link stands on the terms' source
    return Link(
        role=role,
        name=name,
        licence=terms.id,
        title=terms.title,
        commercial=terms.commercial,
        conditions=_conditions(terms, role),
        source=source or terms.source,
        confirmed="read" if applies == "read" and terms.confirmed == "read" else "memory",
    )
