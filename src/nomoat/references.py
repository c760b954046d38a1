"""What a model reference names on this disk: its files, and the licence chain of what it was made from. `responder` has its forms."""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat import net, system_errors
from nomoat.catalog import tuned
from nomoat.errors import NomoatError, OfflineError, UnknownModelError, UsageError
from nomoat.hardware import Detected
from nomoat.hub_folder import CONFIG
from nomoat.providers import PROVIDERS, is_remote
from nomoat.records import Parent
from nomoat.textfiles import as_named

if TYPE_CHECKING:
    from nomoat.catalog.licences import ChainVerdict
    from nomoat.engine.source import ModelSource
    from nomoat.engine.templates import Template
    from nomoat.engine.tokenizer import Tokenizer


AUTO = "auto"  # no model, but a choice between two: route/router.py
FAKE = "fake:"  # the deterministic engine of tests and docs
BY_ADDRESS = ("hf:", "https:")  # begin references to what is pulled from where they say
STORED = "stored:"  # begins the reference to answers given before: stored:SUITE/NAME


def named(ref: str | os.PathLike[str]) -> str:
    """A reference as text. Raises UsageError for what is none."""
    if not isinstance(ref, str | os.PathLike):
        raise UsageError(
            f"a model is named by a text or a path, and this is of the type {type(ref).__name__}", hint='such as "smollm2-135m"'
        )
    return os.fspath(ref)


def names_weights(ref: str) -> bool:
    """Whether a reference means a file on this disk, rather than a server, stored answers or the router."""
    return not (ref in (FAKE, AUTO) or ref.startswith(STORED) or names_server(ref))


def require_weights(ref: str) -> None:
    """Raise UsageError for what names no weights, saying what it means; not for an address that may be meant as a file's."""
    if ref == AUTO:
        raise UsageError("`auto` is no model: it chooses one for each question", hint="`nomoat route policy` says which, and when")
    if ref == FAKE or ref.startswith(STORED):
        what = "the engine of tests" if ref == FAKE else "answers given before"
        raise UsageError(f"`{ref}` names {what}, and no model", hint="`nomoat models` lists the models")
    if ref.startswith("http:") and "#" not in ref and ref.endswith((".gguf", ".safetensors")):
        raise UsageError(
            f"`{ref}` is no address that a file is pulled from: it begins with http:",
            hint="fetch the file yourself, and name its path; of addresses with https:, those of GGUF files are pulled",
        )
    if names_server(ref) and ("#" in ref or not ref.startswith("https:")):
        raise UsageError(
            f"`{ref}` is asked on its server, and nothing of it is here", hint="`nomoat models` lists the models that have a card"
        )


def takes_template(ref: str) -> bool:
    """Whether another chat template can be named for it: for weights on this disk, be it `auto` that answers with them."""
    return ref == AUTO or names_weights(ref)


def names_server(ref: str) -> bool:
    """A provider's name alone does, too: `remote_engine` says what it lacks."""
    return is_remote(ref) or ref in PROVIDERS


def is_local(ref: str) -> bool | None:
    """Whether prompts for a model stay on this machine, as far as is said of it; None for `auto`, which decides that of each.

    Those for a server on this machine do, unless it is a gateway: see `net.gateway_note`. Raises UsageError for a reference to a
    server that cannot be meant, or such a setting.
    """
    if ref == AUTO:
        return None
    if not names_server(ref):
        return True
    from nomoat.engine.server_address import parse

    return net.stays_here(*parse(ref)[1:])


def gateway_note(ref: str) -> str:
    """See `net.gateway_note`, of a reference to a server. Raises what `is_local` raises."""
    from nomoat.engine.server_address import parse

    return net.gateway_note(*parse(ref)[1:])


def require_key(ref: str) -> None:
    """Raise SettingError for a key that a reference to a server needs and that is not set. Not where it may not be asked: offline.

    Connects to nothing. Raises UsageError for a reference that cannot be meant.
    """
    from nomoat.engine.server_address import parse_to_ask

    with suppress(OfflineError):
        parse_to_ask(ref, as_client=False)


def shown_name(ref: str) -> str:
    """See `Responder.name`."""
    if names_server(ref):
        return ref
    if is_path(ref):
        return Path(ref).name
    base, adapter = parted(ref)
    if base and tuned.place_of(adapter):
        return f"{shown_name(base)}+{Path(adapter).name}"
    return Path(ref).name if base and is_path(base) else ref


@dataclass(frozen=True, kw_only=True)
class LocalFiles:
    """What a reference to local weights means on this disk. `name` is the card's id, or the path, of the base."""

    name: str
    weights: Path
    adapter: Path | None

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What `nomoat tune` wrote about the adapter, or `nomoat export` beside a file that one is merged into, as it was when first
        asked for: see `tuned.provenance_of`, `exported_facts`."""
        return tuned.provenance_of(self.adapter) if self.adapter else exported_facts(self.weights)

    @functools.cached_property
    def brought(self) -> Template | None:
        """The chat template in the adapter's folder, where trainers save that of their lessons. Raises BadFileError."""
        if self.adapter is None:
            return None
        from nomoat.engine import folder_tokenizer
        from nomoat.engine.templates import Template

        text, with_tools = folder_tokenizer.chat_templates(self.adapter)
        return None if text is None else Template(text=text, with_tools=with_tools, writes_bos=True)

    def template(self, *, asked: str | None = None, own: str | None, fallback: str | None = None) -> Detected[str] | None:
        """The name of the chat template to use in place of what is there, and why; None for the one that is `brought`, else `own`.

        What is asked for comes first, then what the adapter was tuned with, then, where neither its folder nor the file, whose `own`
        is told, has one, what the model's card names, then the fallback. A card is known by its id, or by its file's name. A file, or
        an adapter's folder, may name one in place of its text.
        """
        from nomoat.engine.templates import NAMED

        if asked:
            return Detected(asked, "as asked")
        if named := tuned.template_of(self.provenance):
            return Detected(named, "as it was tuned")
        said = own if self.brought is None else self.brought.text
        if said in NAMED:
            return Detected(said, "as its file names it")
        if own is not None or self.brought is not None:
            return None
        from nomoat.catalog import cards

        card = cards.find(self.name) or cards.find_by_file(self.weights.name)
        if card and card.template:
            return Detected(card.template, "from its card: the file has none")
        return Detected(fallback, "as asked: it has none") if fallback else None

    def template_text(self, *, asked: str | None = None, own: str | None, fallback: str | None = None) -> str | None:
        """The chat template it answers with, if there is one: see `template`. Raises BadFileError."""
        from nomoat.engine import templates

        named = self.template(asked=asked, own=own, fallback=fallback)
        chosen = templates.named(named.value) if named else self.brought
        return chosen.text if chosen else own

    @property
    def question(self) -> str | None:
        """What the adapter learned to answer, be it merged into the file: see `tuned.question_of`."""
        return tuned.question_of(self.provenance)

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about an adapter beside these weights."""
        other = other_base(self.weights, self.provenance) if self.adapter else None
        return (f"`{self.adapter.name}` was learned beside {other}, other weights than these",) if self.adapter and other else ()

    def read_tokenizer(self, source: ModelSource) -> Tokenizer:
        """The tokenizer of these weights, opened, with the chat template it answers with."""
        tokenizer = source.read_tokenizer()
        named = self.template(own=tokenizer.chat_template)
        if used := named.value if named else self.brought:
            tokenizer.use_template(used)
        return tokenizer


def find_files(ref: str) -> LocalFiles:
    """The files of a card, a path or a file that was pulled by its address, with or without an adapter.

    Raises UnknownModelError for what does not exist here, naming the nearest, and saying how to fetch what can be fetched.
    """
    if not all(parted(ref) if "+" in ref else (ref,)):
        raise UsageError(
            f"`{ref}` names no model", hint="write MODEL, or BASE+ADAPTER for a tuned one; `nomoat models` lists the models"
        )
    base, adapter = split(ref)
    require_one_adapter(base, adapter)
    return LocalFiles(name=base, weights=_find_weights(base), adapter=tuned.find_adapter(adapter) if adapter else None)


def require_one_adapter(base: str, adapter: str) -> None:
    """Raise UsageError for the base of a reference that is itself a base with an adapter that is here."""
    first, second = split(base)
    if adapter and second and tuned.place_of(second):
        raise UsageError(
            f"`{base}+{adapter}` names two adapters, `{second}` and `{adapter}`, and a model answers with one",
            hint=f"`{first}+{second}` and `{first}+{adapter}` answer each by itself; "
            f"`nomoat tune {base} DATA` goes on from `{second}`",
        )


def split(ref: str) -> tuple[str, str]:
    """The base and the adapter that a reference names; "" for no adapter: a path, or a pulled file, may hold a plus of its own."""
    from nomoat.catalog import pull

    base, adapter = parted(ref)
    return (base, adapter) if base and adapter and not is_path(ref) and pull.find_installed(ref) is None else (ref, "")


def parted(ref: str) -> tuple[str, str]:
    """BASE and ADAPTER of a reference with a plus, which both may hold pluses of their own; without one, "" and the reference.

    The adapter begins behind the first plus behind which one is named that is here, or else behind the last.
    """
    parts = ref.split("+")
    ways = (("+".join(parts[:at]), "+".join(parts[at:])) for at in range(1, len(parts)))
    return next((way for way in ways if all(way) and tuned.place_of(way[1]) is not None), ref.rpartition("+")[::2])


def is_path(ref: str) -> bool:
    """Whether a reference means what lies at that path. A folder that is no model does not hide a card, or an adapter of one."""
    from nomoat.catalog import cards

    try:
        path = as_named(ref)
        if not path.is_dir() or (path / CONFIG).is_file():
            return path.exists()
    except OSError as exc:  # such as for a text that is too long for a file's name
        raise (system_errors.as_error(exc) or exc) from exc
    return cards.find(ref) is None and cards.find(parted(ref)[0]) is None


def _find_weights(ref: str) -> Path:
    if is_path(ref):
        return as_named(ref)
    require_no_file_meant(ref)
    from nomoat.catalog import pull

    installed = pull.find_installed(ref)
    if installed is not None:
        return installed
    pull.require_source(ref)
    raise UnknownModelError(f"`{ref}` is not on this machine yet", hint=f"nomoat pull {ref}")


def require_no_file_meant(ref: str) -> None:
    """Raise UnknownModelError for a reference that can only mean a GGUF file of this disk, where `is_path` says it is not there."""
    if ref.endswith(".gguf") and not ref.startswith(BY_ADDRESS):
        raise UnknownModelError(f"no file at `{ref}`", hint="check the path, or see what there is with `nomoat models`")


def licence_chain(ref: str) -> ChainVerdict | None:
    """What a local model may be used for, with all it was made from; None for a model elsewhere. Raises what `find_files` raises."""
    return _chain(find_files(ref)) if names_weights(ref) else None


def _chain(files: LocalFiles) -> ChainVerdict:
    return weights_chain(files.weights) if files.adapter is None else adapter_chain(files.name, files.adapter)


def weights_chain(weights: Path) -> ChainVerdict:
    """The licence chain of weights without an adapter: their card's, or see `sidecar.chain_of`. Raises BadFileError."""
    from nomoat.catalog import licences, pull, sidecar
    from nomoat.engine.importer import sha256_of_model

    card = pull.card_of(weights, sha256_of_model)
    return licences.chain(card) if card is not None else sidecar.chain_of(weights, sha256_of_model)


def exported_facts(weights: Path) -> dict[str, Any]:
    """What `nomoat export` wrote beside this very file, in the form of an adapter's `provenance.json`. Raises BadFileError."""
    from nomoat.catalog import sidecar
    from nomoat.engine.importer import sha256_of_model

    return sidecar.told_of(weights, sha256_of_model) if weights.is_file() else {}


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
    path, provenance = adapter / tuned.PROVENANCE, tuned.provenance_of(adapter)
    if not (provenance or path.is_file()):
        return licences.chain_of_all(chain, licences.of_parents([Parent(kind="data", name="not recorded", licence="unknown")]))
    at = sidecar.path_of(adapter) if adapter.is_file() else path
    found = sidecar.recorded_chain(provenance, at, hint="tune the adapter again")
    return found if _was_base(base, weights, provenance) else licences.chain_of_all(chain, found)


def _was_base(base: str, weights: Path | None, provenance: dict[str, Any]) -> bool:
    """Whether an adapter was tuned beside this base: by its sha256, where it is here and was recorded."""
    from nomoat.catalog import pull
    from nomoat.engine.importer import sha256_of_model

    is_named = provenance.get("base") == base
    if weights is None or "base_sha256" not in provenance:
        return is_named or Path(base).name == provenance.get("base_file")
    return (is_named and pull.find_installed(base) == weights) or provenance["base_sha256"] == sha256_of_model(weights)


def other_base(weights: Path, provenance: dict[str, Any]) -> str | None:
    """The file of weights that an adapter was learned beside, with its sha256, where that is another one than these.

    None where one of the two is a folder: no digest tells whether a GGUF file was made of that.
    """
    from nomoat.engine.importer import sha256_of_model

    file, digest = str(provenance.get("base_file")), provenance.get("base_sha256")
    is_same = (
        digest is None or file.lower().endswith(".gguf") != (weights.suffix.lower() == ".gguf") or digest == sha256_of_model(weights)
    )
    return None if is_same else f"{file} (sha256 {str(digest)[:16]}…)"


def licence_of(files: LocalFiles) -> str:
    """Whether the model may be used commercially, in a few words: the chain's verdict and the terms that decide it."""
    from nomoat.catalog import licences

    return licences.in_short(_chain(files))
