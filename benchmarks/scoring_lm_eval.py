"""The peer of scoring.py, run in lm-eval-harness's own environment: reads {"folder", "batch_size", "pairs"} from stdin, prints JSON.

pip install "lm-eval[hf]"
"""

from __future__ import annotations

import json
import sys
import time

try:
    import lm_eval
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has lm-eval:\n{__doc__}")

asked = json.load(sys.stdin)
torch.set_num_threads(asked["threads"])
model = HFLM(pretrained=asked["folder"], device="cpu", dtype="float32", batch_size=asked["batch_size"])
requests = [
    Instance(request_type="loglikelihood", doc={}, arguments=(context, continuation), idx=at)
    for at, (context, continuation) in enumerate(asked["pairs"])
]
model.loglikelihood(requests[:2], disable_tqdm=True)
began = time.perf_counter()
answers = model.loglikelihood(requests, disable_tqdm=True)
seconds = time.perf_counter() - began
print(json.dumps({"version": lm_eval.__version__, "seconds": seconds, "log_probabilities": [value for value, _ in answers]}))
