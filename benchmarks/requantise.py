"""A GGUF file in another of llama.cpp's types, as people find them: run by a Python that has llama-cpp-python, and nothing of nomoat.

    VENV/bin/python benchmarks/requantise.py FILE.gguf Q3_K_M TARGET.gguf

Types are those of llama.cpp's `llama-quantize`. A file that is quantised already is quantised a second time: it answers worse than
one made of the original weights, and is as fast.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("type", help="Q5_K_M, Q3_K_M, Q2_K, IQ4_XS, ...")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        import llama_cpp as c
    except ImportError:
        parser.error("run it by the Python of an environment that has llama-cpp-python: VENV/bin/python, see speed_llama_cpp.py")
    settings = c.llama_model_quantize_default_params()
    settings.ftype = getattr(c, f"LLAMA_FTYPE_MOSTLY_{arguments.type.upper()}")
    settings.allow_requantize = True
    failed = c.llama_model_quantize(bytes(arguments.source), bytes(arguments.target), settings)
    sys.exit(f"llama.cpp could not write {arguments.target}" if failed else 0)


if __name__ == "__main__":
    main()
