"""Every type that llama.cpp's quantiser writes without an importance matrix: nomoat's logits beside llama.cpp's own, of the same file.

    python benchmarks/file_types.py smollm2-135m --llama-python VENV/bin/python [--types Q4_K_M "Q4_0 pure output=F16"] [--json FILE]

The model's file is quantised again to each type (`requantise.py`; words after a type are options of that). A text of English, Korean,
code and digits is read at once by both, and each is compared with what the file itself means: all in float32 (`layouts.py`). `kl` is
the divergence from that, a token, of whole distributions; `kl_answers` of nomoat's where it reads the tokens one at a time; `apart`
that of nomoat's from llama.cpp's. llama.cpp rounds inputs to 8 bits, as nomoat does, but not for F32, F16 and BF16. `types`: what the
file holds, and `kept`: how nomoat keeps it, by their share of weights. `--files`: a folder that keeps the files for the next time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from facts import answer_of, circumstances, program, write
from layouts import Logits, exact_model, log_softmax, served_at
from startup import IMPORT, run_python

from nomoat import config, references
from nomoat.engine import importer, tokenizer
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import NomoatError

TYPES = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M",
    "Q5_K_S", "Q5_K_M", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4_MOE", "Q1_0", "Q2_0", "Q4_0 pure", "Q4_1 pure", "Q5_1 pure", "Q2_K pure",
    "Q3_K_M pure", "Q4_K_M pure", "Q6_K pure", "MXFP4_MOE pure", "Q4_0 output=F16", "Q4_K_S output=Q6_K", "Q8_0 output=Q4_0",
    "Q5_0 output=F32", "IQ4_NL", "IQ4_NL pure", "IQ4_XS", "IQ3_S", "IQ3_M", "IQ3_XS", "IQ3_XXS", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M",
)  # fmt: skip
TEXT = """The moat was dug in 1385 around a square castle, and filled from a spring that never freezes. Visitors cross it by a wooden \
bridge; in summer, carp rise to take bread from children's hands. 성을 둘러싼 해자는 폭이 4미터쯤 되고, 겨울에도 얼지 않는다.
def area(radius: float) -> float:
    return 3.14159 * radius ** 2  # not exact
Tickets rose from $1,299.00 to $1,450.50 in 2024 (about 11.7 %). "Don't worry," she said, "it's only water." And then the lights went \
out, one after another, until the whole street was dark and nobody could say any longer where the road ended and the river began.
"""
PEER, QUANTISER = (Path(__file__).with_name(name) for name in ("file_types_llama_cpp.py", "requantise.py"))


def made(source: Path, case: str, python: str, folder: Path) -> Path | str:
    """The model in that type, or why llama.cpp does not write it so."""
    target = folder / f"{source.stem}-{case.replace(' ', '-')}.gguf"
    if target.exists():
        return target
    name, *words = case.split()
    part = target.with_suffix(".part")
    command = [python, str(QUANTISER), str(source), name, str(part), *(f"--{word}" for word in words)]
    done = subprocess.run([*command, "--threads", str(config.threads().value)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return part.rename(target)
    part.unlink(missing_ok=True)
    if done.returncode == 2:  # argparse's: no llama-cpp-python there, or words that it does not know
        sys.exit(done.stderr)
    why = (said.partition("failed to quantize: ")[2] for said in done.stderr.splitlines())
    return next(filter(None, why), f"it ended with {done.returncode}")


def shares(counted: Counter[str]) -> dict[str, float]:
    """In percent, the largest first."""
    return {name: round(100 * count / counted.total(), 1) for name, count in counted.most_common()}


def kept(file: GGUFFile) -> dict[str, Any]:
    """Which types a file's matrices have, and how they are kept, by their share of weights."""
    stored, types, forms = importer.planned(file), Counter[str](), Counter[str]()
    for tensor in file.tensors.values():
        if tensor.is_matrix:
            types[tensor.type_name] += tensor.num_values
            forms[str(stored.form_of(tensor))] += tensor.num_values
    return {
        "file_bytes": file.path.stat().st_size, "weights_bytes": stored.bytes_of(file, importer.read_sizes(file)),
        "types": shares(types), "kept": shares(forms),
    }  # fmt: skip


def divergence(reference: Logits, ours: Logits) -> dict[str, float]:
    """Of `ours` from the reference, both log-probabilities [tokens, vocabulary]: mean and largest, and top-1 agreement."""
    by_token = [float(np.sum(np.exp(p) * (p - q), dtype=np.float64)) for p, q in zip(reference, ours, strict=True)]
    same = reference.argmax(axis=1) == ours.argmax(axis=1)
    return {"kl": float(np.mean(by_token)), "kl_largest": max(by_token), "top1_percent": 100 * float(same.mean())}


def compared(path: Path, theirs_at: Path, ids: Sequence[int]) -> dict[str, Any]:
    """Of tokens that llama.cpp has read. In a process of its own: OpenVINO keeps memory."""
    theirs = log_softmax(np.load(theirs_at))
    with tempfile.TemporaryDirectory() as place:
        exact = exact_model(GGUFFile(path), Path(place)).log_probabilities(ids, len(ids))
    served = served_at("default", path, last_only=False)[0]
    ours = served.log_probabilities(ids, len(ids))
    found = {"nomoat": divergence(exact, ours), "llama.cpp": divergence(exact, theirs), "apart": divergence(theirs, ours)}
    found["nomoat"]["kl_answers"] = divergence(exact, served.log_probabilities(ids, 1))["kl"]
    at = np.arange(len(ids) - 1), np.array(ids[1:])
    found["nll"] = {name: -float(of[at].mean()) for name, of in (("exact", exact), ("nomoat", ours), ("llama.cpp", theirs))}
    return found


def measured(path: Path, python: str, num_tokens: int, folder: Path) -> dict[str, Any]:
    """One file, read by both. `refused`: what nomoat says of a file that it cannot read."""
    try:
        found = kept(GGUFFile(path))
    except NomoatError as refusal:
        return {"refused": str(refusal).replace(str(path), path.name), "hint": refusal.hint}
    theirs_at = folder / "theirs.npy"
    importer.forget(path)  # what a run that was ended left of it
    imported_to = run_python(IMPORT, str(path)).split()
    found["import_peak_bytes"] = int(imported_to[1])
    asked = {"file": str(path), "text": TEXT, "tokens": num_tokens, "threads": config.threads().value, "to": str(theirs_at)}
    try:
        theirs = answer_of([python, str(PEER)], asked)
    except subprocess.CalledProcessError as failed:
        return {**found, "llama_cpp_refused": f"it ended with {failed.returncode}"}
    ids = tokenizer.load(Path(imported_to[2])).encode(TEXT, add_bos=True)[:num_tokens]
    found |= {"version": theirs["version"], "tokens": len(theirs["ids"]), "same_ids": ids == theirs["ids"]}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        found |= process.submit(compared, path, theirs_at, theirs["ids"]).result()
    importer.forget(path)
    return found


def line(case: str, found: dict[str, Any]) -> str:
    """For people."""
    if "apart" not in found:
        return f"{case:22} {found}"
    ours, theirs, apart = found["nomoat"], found["llama.cpp"], found["apart"]
    kept_as = ", ".join(f"{share:g} % {form}" for form, share in found["kept"].items())
    return (
        f"{case:22} KL nomoat {ours['kl']:.4f} (largest {ours['kl_largest']:.3f}, answers {ours['kl_answers']:.4f}), "
        f"llama.cpp {theirs['kl']:.4f} ({theirs['kl_largest']:.3f}), apart {apart['kl']:.4f}, top-1 {apart['top1_percent']:.0f} %, "
        f"NLL {found['nll']['exact']:.3f} {found['nll']['nomoat']:.3f} {found['nll']['llama.cpp']:.3f}, "
        f"{found['file_bytes'] / 1e6:.0f} MB, import {found['import_peak_bytes'] / 1e6:.0f} MB, "
        f"ids {'same' if found['same_ids'] else 'DIFFER'}; {kept_as}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--llama-python", type=program, required=True, help="a Python that has llama-cpp-python")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--tokens", type=int, default=250, help="of the text, at most")
    parser.add_argument("--files", type=Path, help="a folder that keeps the quantised files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.files:
        options.files.mkdir(parents=True, exist_ok=True)
    source = references.find_files(options.model).weights
    result: dict[str, Any] = {**circumstances(), "model": options.model, "source": source.name, "types": {}}
    with tempfile.TemporaryDirectory() as place:
        for case in options.types:
            path = made(source, case, options.llama_python, options.files or Path(place))
            if isinstance(path, str):
                found: dict[str, Any] = {"not_written": path}
            else:
                found = measured(path, options.llama_python, options.tokens, Path(place))
                if not options.files:
                    path.unlink()
            result["types"][case] = found
            print(line(case, found), flush=True)
            write(options.json, result)


if __name__ == "__main__":
    main()
