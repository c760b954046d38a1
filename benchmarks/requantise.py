"""A GGUF file in another of llama.cpp's types, as people find them: run by a Python that has llama-cpp-python, and nothing of nomoat.

    VENV/bin/python benchmarks/requantise.py FILE.gguf Q3_K_M TARGET.gguf [--pure] [--output TYPE] [--embedding TYPE] [--threads N]

Types are those of llama.cpp's `llama-quantize`; those of two matrices are tensors' (Q6_K), all others files' (Q3_K_M). A file that is
quantised already is quantised a second time: it answers worse than one made of the original weights, and is as fast. `--pure`: all
matrices have the same type, but for those whose width no block of it divides.
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
    parser.add_argument("--pure", action="store_true")
    parser.add_argument("--output", help="the type of the output matrix, which is the embedding in many models")
    parser.add_argument("--embedding", help="the type of an embedding that is not the output matrix, too")
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    arguments = parser.parse_args()
    try:
        import llama_cpp as c
    except ImportError:
        parser.error("run it by the Python of an environment that has llama-cpp-python: VENV/bin/python, see speed_llama_cpp.py")
    settings = c.llama_model_quantize_default_params()
    prefix = "LLAMA_FTYPE_ALL_" if arguments.type.upper() == "F32" else "LLAMA_FTYPE_MOSTLY_"
    settings.ftype = getattr(c, f"{prefix}{arguments.type.upper()}")
    settings.allow_requantize, settings.pure, settings.nthread = True, arguments.pure, arguments.threads
    for name, type_name in (("output_tensor_type", arguments.output), ("token_embedding_type", arguments.embedding)):
        if type_name:
            setattr(settings, name, getattr(c, f"GGML_TYPE_{type_name.upper()}"))
    failed = c.llama_model_quantize(bytes(arguments.source), bytes(arguments.target), settings)
    sys.exit(f"llama.cpp could not write {arguments.target}" if failed else 0)


if __name__ == "__main__":
    main()
