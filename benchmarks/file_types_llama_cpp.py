"""llama.cpp as a peer of `file_types.py`, in an environment of its own: reads {"file", "text", "tokens", "threads", "to"} from stdin.

CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python

Answers with the text's tokens, and writes the logits after each of them, read at once with llama.cpp's own defaults, to the file `to`.
"""

from __future__ import annotations

import json
import sys

try:
    import llama_cpp
    import numpy as np
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has llama-cpp-python:\n{__doc__}")

asked = json.load(sys.stdin)
size = {"n_ctx": asked["tokens"], "n_batch": asked["tokens"], "n_ubatch": asked["tokens"]}
threads = {"n_threads": asked["threads"], "n_threads_batch": asked["threads"]}
model = llama_cpp.Llama(asked["file"], logits_all=True, verbose=False, **size, **threads)
ids = model.tokenize(asked["text"].encode(), add_bos=True)[: asked["tokens"]]
model.eval(ids)
np.save(asked["to"], np.asarray(model.scores[: len(ids)], np.float32))
print(json.dumps({"version": llama_cpp.__version__, "ids": ids}))
