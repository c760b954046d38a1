"""An OpenAI-compatible server for any responder. `nomoat.serve(...)` is `nomoat.serve.app.serve(...)`."""

from __future__ import annotations

from nomoat import namesake

namesake.call_as_function(__name__, "nomoat.serve.app")
