"""`nomoat config`: each setting, its value and where it came from."""

from __future__ import annotations

from nomoat.cli import console, options
from nomoat.config import keys, settings


def config(as_json: options.AsJson = False) -> None:
    """Show each setting and where its value came from.

    \b
    Examples:
      nomoat config
      nomoat config --json
      NOMOAT_HOME=/data/nomoat nomoat config

    Order: flag, then environment, then config.toml in NOMOAT_HOME (keys.toml for keys), then what was detected. Of a key only its end
    is shown.
    """
    found, wrong = keys()
    rows = settings() + found
    if as_json:
        console.print_json(rows)
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            instead = f"  NOT VALID: give {row.give_instead}" if row.give_instead else ""
            console.print_text(f"{row.name:<{width}}  {row.value}  ({row.origin}){instead}")
    if wrong is not None:
        raise wrong
