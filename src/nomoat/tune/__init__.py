"""Fine-tuning on a CPU. `nomoat.tune(...)` is `nomoat.tune.train.tune(...)`."""

from __future__ import annotations

import os

from nomoat import callable_package

callable_package.call_as_function(__name__, "nomoat.tune.train")

# Before PyTorch loads OpenMP. By default its threads wait for each other by spinning for long: as soon as another program wants one of
# the cores, each of the thousands of small parallel regions of a step waits for a thread that does not run. Sleeping at once instead
# (OMP_WAIT_POLICY=PASSIVE) costs a third of the speed where nothing else runs; this is between them. See docs/tried/threads.md.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
