"""llama.cpp as a peer of `large_model.py`, in an environment of its own, so that its peak memory is its own.

CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python

Reads {"path", "threads", "prompt_tokens", "new_tokens", "turns"} from stdin. Unlike `speed_llama_cpp.py` it makes one small context.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

try:
    from llama_cpp import Llama
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has llama-cpp-python:\n{__doc__}")

asked = json.load(sys.stdin)
began = time.perf_counter()
model = Llama(model_path=asked["path"], n_ctx=1024, n_threads=asked["threads"], n_threads_batch=asked["threads"], verbose=False)
tokens = [1, *range(300, 299 + asked["prompt_tokens"])]
model.eval([1])
loaded = time.perf_counter() - began
prefills, decodes = [], []
for _ in range(asked["turns"]):
    model.reset()
    began = time.perf_counter()
    model.eval(tokens)
    prefilled = time.perf_counter()
    prefills.append(len(tokens) / (prefilled - began))
    for count, _token in enumerate(model.generate([model.sample(temp=0)], temp=0, reset=False), 1):
        if count == asked["new_tokens"]:
            break
    decodes.append(asked["new_tokens"] / (time.perf_counter() - prefilled))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
found = {
    "load_seconds": round(loaded, 1),
    "prompt_tokens": len(tokens),
    "prefill_tok_s": round(prefills[0], 1),
    "decode_tok_s": round(max(decodes), 2),
    "peak_gb": round(int(status["VmHWM"].split()[0]) * 1024 / 1e9, 2),
}
print(json.dumps(found))
