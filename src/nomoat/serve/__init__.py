"""An OpenAI-compatible server for any responder. `nomoat.serve(...)` is `nomoat.serve.app.serve(...)`."""

from __future__ import annotations

from nomoat import callable_package

callable_package.call_as_function(__name__, "nomoat.serve.app")
