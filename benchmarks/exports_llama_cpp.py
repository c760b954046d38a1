"""llama.cpp as a peer of `exports.py`, in an environment of its own: reads {"files", "chats", "max_tokens", "threads"} from stdin.

CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
"""

from __future__ import annotations

import json
import sys
import time

try:
    import llama_cpp
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has llama-cpp-python:\n{__doc__}")

asked = json.load(sys.stdin)
model = llama_cpp.Llama(**asked["files"], n_ctx=2048, n_threads=asked["threads"], n_threads_batch=asked["threads"], verbose=False)
model.create_chat_completion(asked["chats"][0], temperature=0.0, max_tokens=1)
began = time.perf_counter()
done = [model.create_chat_completion(chat, temperature=0.0, max_tokens=asked["max_tokens"]) for chat in asked["chats"]]
seconds = time.perf_counter() - began
answers = [one["choices"][0]["message"]["content"].strip() for one in done]
print(json.dumps({"version": llama_cpp.__version__, "seconds": seconds, "answers": answers}))
