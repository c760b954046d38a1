"""Which form and properties are chosen, and why."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reference import EXACT
from tiny import write_tiny_gguf

from nomoat import config, footprint, hardware
from nomoat.engine import arch as architectures
from nomoat.engine import hugepages, importer, layout
from nomoat.engine.gguf import GGUFFile, Tensor
from nomoat.engine.likelihood import Question, Scorer
from nomoat.errors import NotEnoughMemoryError, UsageError

WITH_AVX2, WITH_DOTPROD, WITHOUT = frozenset({"avx2", "fma", "f16c"}), frozenset({"asimddp"}), frozenset({"sse2"})


def file_of(*, values: int, type_name: str, architecture: str = "llama") -> Any:
    columns = 4096
    tensor = Tensor("blk.0.ffn_up.weight", type_name, (values // columns, columns), 0, 0)
    return SimpleNamespace(tensors={tensor.name: tensor}, num_values=values, metadata={"general.architecture": architecture})


@pytest.mark.parametrize(
    ("billions", "type_name", "quality", "flags", "form"),
    [
        (0.5, "Q4_K", "default", WITH_AVX2, "the file's own codes"),
        (0.5, "Q4_K", "default", WITHOUT, "int8 rows"),
        (1.5, "Q4_K", "default", WITH_AVX2, "the file's own codes"),
        (1.5, "Q4_K", "high", WITH_AVX2, "the file's own codes"),
        (1.5, "Q4_K", "default", WITHOUT, "int8 rows"),
        (3.1, "Q4_K", "default", WITHOUT, "int8 rows"),
        (3.1, "Q8_0", "default", WITH_AVX2, "the file's own codes"),
        (3.1, "Q8_0", "default", WITHOUT, "int8 rows"),
        (0.5, "Q4_1", "small", WITH_AVX2, "the file's own codes"),
        (0.5, "Q4_1", "small", WITHOUT, "uint4 in groups of 64"),
        (0.5, "Q8_0", "small", WITH_AVX2, "uint4 in groups of 64"),
        (0.5, "Q5_0", "small", WITH_AVX2, "uint4 in groups of 64"),
        (0.5, "Q4_K", "high", WITH_AVX2, "int8 in groups of 64"),
        (1.5, "IQ4_XS", "high", WITH_AVX2, "the file's own codes"),
        (1.5, "Q3_K", "small", WITH_AVX2, "the file's own codes"),
        (3.1, "Q2_K", "default", WITHOUT, "int8 rows"),
        (1.5, "Q5_K", "default", WITH_AVX2, "the file's own codes"),
        (1.5, "Q5_K", "high", WITH_AVX2, "int8 in groups of 64"),
    ],
)
def test_the_form_follows_from_the_files_own_bits_its_size_the_quality_and_the_cpu(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, billions: float, type_name: str, quality: config.Quality, flags: frozenset[str],
    form: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)
    file = file_of(values=int(billions * 1e9) // 2**16 * 2**16, type_name=type_name)  # rows in whole tiles
    stored = layout.storage(file, importer.read_sizes(GGUFFile(tiny_gguf)), quality)
    assert str(stored).startswith(f"layers {form}")
    assert stored.reason


@pytest.mark.parametrize("flags", [WITHOUT, WITH_DOTPROD])
def test_what_is_fastest_is_said_of_the_cpus_that_were_measured(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, flags: frozenset[str]
) -> None:
    """No ARM was, nor any without AVX2."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)
    stored = layout.storage(file_of(values=2**29, type_name="Q4_K"), importer.read_sizes(GGUFFile(tiny_gguf)), "default")
    assert stored.reason.startswith("on the CPUs that were measured ")


@pytest.mark.parametrize("quality", ["small", "default", "high"])
@pytest.mark.parametrize("type_name", ["Q4_K", "Q5_K", "Q8_0", "F16"])
def test_a_mixture_is_in_tiles_at_every_quality(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, quality: config.Quality, type_name: str
) -> None:
    """Elsewhere all experts would be computed for each token."""
    sizes = replace(importer.read_sizes(GGUFFile(tiny_gguf)), experts=8, experts_chosen=2)
    for flags, is_tiled in ((WITH_AVX2, True), (WITHOUT, False)):
        monkeypatch.setattr(hardware, "cpu_flags", lambda flags=flags: flags)
        assert layout.storage(file_of(values=2**27, type_name=type_name), sizes, quality).has_tiles == is_tiled


def test_the_families_that_keep_their_codes_are_those_told_before_a_download(tiny_gguf: Path) -> None:
    sizes = importer.read_sizes(GGUFFile(tiny_gguf))
    usual = {name for name, arch in architectures.known().items()
             if architectures.is_usual(arch, sizes) and architectures.has_usual_attention(arch, sizes)}  # fmt: skip
    assert usual == footprint.NATIVE_FAMILIES


def test_keys_with_norms_are_uneven_and_those_with_biases() -> None:
    normed = {name for name, arch in architectures.known().items() if arch.qk_norm} & footprint.NATIVE_FAMILIES
    assert normed == footprint.UNEVEN_KEYS - {"chatglm", "glm4", "gpt-oss", "qwen2", "qwen2moe"}  # these by their biases


@pytest.mark.parametrize(("flags", "form"), [(WITHOUT, "int8 in groups of 64"), (WITH_AVX2, "the file's own codes")])
def test_gemma_has_more_than_one_scale_a_row(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, flags: frozenset[str], form: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)
    file = file_of(values=2**28, type_name="Q5_0", architecture="gemma3")
    stored = layout.storage(file, importer.read_sizes(GGUFFile(tiny_gguf)), "default")
    assert str(stored) == f"layers {form}"


def test_a_small_4_bit_file_of_any_family_keeps_its_codes_at_the_quality_small(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: WITH_AVX2)
    sizes = importer.read_sizes(GGUFFile(tiny_gguf))
    for values, form in ((2**27, "the file's own codes"), (2**24, "uint4 in groups of 64")):  # the second is done at once in any form
        stored = layout.storage(file_of(values=values, type_name="Q4_K", architecture="gpt2"), sizes, "small", fused=False)
        assert str(stored).startswith(f"layers {form}")


def test_a_4_bit_file_of_3_billion_weights_is_not_doubled(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: WITH_AVX2)
    values = 3 * 2**30
    file = file_of(values=values, type_name="Q4_K")
    sizes = importer.read_sizes(GGUFFile(tiny_gguf))
    stored = layout.storage(file, sizes, "default")
    assert stored.bytes_of(file, sizes) < 1.2 * values * 144 / 256


def test_a_matrix_that_an_adapter_changes_has_8_bits(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: WITH_AVX2)
    file = file_of(values=2**27, type_name="Q4_1")
    stored = layout.storage(file, importer.read_sizes(GGUFFile(tiny_gguf)), "small")
    (tensor,) = file.tensors.values()
    assert stored.form("model.layers.0.mlp.up_proj", tensor, changed=False) == layout.TILES
    assert stored.form("model.layers.0.mlp.up_proj", tensor, changed=True) == layout.TILES8


def test_layers_in_one_product_compute_what_they_compute_apart(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "qwen2.gguf", arch="qwen2")  # which has biases
    ids = np.random.default_rng(0).integers(3, 250, 40).tolist()
    question = [Question(ids[:1], [ids[1:]])]
    fused, apart = (Scorer(importer.import_gguf(path, fused=fused), EXACT).score_many(question)[0][0] for fused in (True, False))
    assert fused.log_probability == pytest.approx(apart.log_probability, abs=1e-3)


def test_each_quality_is_imported_by_itself(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = importer.import_gguf(tiny_gguf)
    monkeypatch.setenv("NOMOAT_QUALITY", "high")
    assert importer.import_gguf(tiny_gguf) != default
    assert importer.import_gguf(tiny_gguf, quality="default") == default


def test_an_unknown_quality_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_QUALITY", "best")
    with pytest.raises(UsageError) as caught:
        config.quality()
    assert (caught.value.message, caught.value.hint) == ("the quality is `best`", "give one of: high, default, small")


@pytest.mark.parametrize("quality", config.QUALITIES)
def test_every_property_has_a_reason(tiny_gguf: Path, quality: config.Quality) -> None:
    file = GGUFFile(tiny_gguf)
    sizes = importer.read_sizes(file)
    threads = hardware.Detected(2, "2 physical cores")
    chosen = layout.choose(sizes, layout.storage(file, sizes, quality), threads=threads)
    assert chosen.reasons.keys() == chosen.properties.keys()
    assert all(chosen.reasons.values())
    assert chosen.scoring_properties["INFERENCE_PRECISION_HINT"] == "f32"


WRITES_A_LITTLE = """
import psutil
from nomoat.engine import hugepages
memory = hugepages.memory(64 << 20)
assert memory.ctypes.data % hugepages.PAGE_BYTES == 0 and len(memory) == 64 << 20
memory[:100] = 1
before = psutil.Process().memory_info().rss
assert memory[:200].sum() == 100
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux alone")
def test_memory_for_keys_and_values_is_real_where_it_is_written_alone() -> None:
    """In a process of its own: another's memory may become large pages, too."""
    grown = subprocess.run([sys.executable, "-c", WRITES_A_LITTLE], check=True, capture_output=True, text=True).stdout
    assert int(grown) < 32 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_memory_that_the_system_does_not_give_is_an_error_that_says_so() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"(?m)^the system does not give 1000000000\.0 GB of memory$"):
        hugepages.mapped(10**18)
