"""OpenVINO itself, which reads graphs, and copies of what it compiled.

A compiled model is kept on disk: read back in a tenth of the time that compiling takes, it gives the same bits.

OpenVINO 2026.4 writes a model with paged attention, and cannot read it back: it leaves out the sizes of its heads, which its plugin
for CPUs then asks for. They are added here while it reads. Whatever is wrong with a copy, the model is compiled from its folder.

What this does not have: copies of large models. A copy takes the disk space of the weights once more, and twice their memory while
it is written.
"""

from __future__ import annotations

import functools
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nomoat import hardware, system_errors, whole_files
from nomoat.engine.imported import GRAPH, not_whole
from nomoat.errors import NomoatError, NotWritableError
from nomoat.uncut import uncut

VERSION = "2"  # change it when what `paged` makes of a folder changes
LARGEST_BYTES = 600_000_000  # the weights of some 0.5 billion parameters in int8
BLOB, FACTS = "model.blob", "facts.json"


@functools.cache
def core() -> Any:
    """OpenVINO's core, kept for as long as the process lives.

    Its CPU plugin gives the thread that loads it a stack for signal handlers and unmaps that in the thread that unloads it. If those
    were two threads, the next Ctrl-C of the first would be a segmentation fault.
    """
    with uncut():
        import openvino as ov

        from nomoat.engine.custom_ops import OPERATIONS

    made = ov.Core()
    for operation in (_attention_with_sizes(), *OPERATIONS):
        made.add_extension(operation)
    return made


def read_graph(folder: Path) -> Any:
    """The model of an imported folder. Raises BadFileError, and NotEnoughMemoryError."""
    try:
        return core().read_model(str(folder / GRAPH))
    except RuntimeError as exc:
        if (error := system_errors.as_error(exc)) is not None:
            raise error from exc
        raise not_whole(folder, str(exc).strip().splitlines()[-1]) from exc


def _attention_with_sizes() -> type:
    """What OpenVINO makes paged attention with where it finds it in a file: its own operation, and the sizes of heads beside it."""
    import openvino as ov
    from openvino.op import _PagedAttentionExtension as PagedAttention

    class AttentionWithSizes(ov.Op):  # type: ignore[misc]
        class_type_info = ov.DiscreteTypeInfo("PagedAttentionExtension", "extension")

        def __init__(self) -> None:
            super().__init__(self)

        def get_type_info(self) -> Any:
            return self.class_type_info

        def set_arguments(self, arguments: list[Any]) -> None:
            self._arguments = arguments

        def visit_attributes(self, visitor: Any) -> bool:
            return False

        def outputs(self) -> Any:
            attention = PagedAttention(self._arguments)
            sizes = attention.get_rt_info()
            for letter, new, cache in (("k", 1, 3), ("v", 2, 4)):
                width = self._arguments[new].partial_shape[-1].get_length()
                heads = self._arguments[cache].partial_shape[1].get_length()
                sizes[f"num_{letter}_heads"], sizes[f"{letter}_head_size"] = heads, width // heads
            return attention.outputs()

    return AttentionWithSizes


class CompiledCopy:
    """The copy of one model in a folder of its own. Neither method raises an error of the disk: a copy saves time, nothing else."""

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        """`properties`: those the model is compiled with. One made with others, by another OpenVINO or on another CPU is not read."""
        import openvino as ov

        self._folder, self._properties = folder, properties
        self._key = {"version": VERSION, "openvino": ov.__version__, "cpu": hardware.cpu_kind(), "properties": properties}
        self._files: list[Any] = []  # of every model read: each uses its own as long as it lives

    def read(self) -> Any | None:
        """The compiled model, or None. It reads its weights from a file that this object holds open: keep both."""
        import openvino as ov

        facts = self._facts()
        if facts is None or not facts["readable"]:
            return None
        try:
            file = np.memmap(self._folder / BLOB, np.uint8, "c")
            if len(file) != facts["bytes"]:
                return None
            self._files.append(file)
            return core().import_model(ov.Tensor(file, shared_memory=True), "CPU", self._properties)
        except (OSError, ValueError, RuntimeError, MemoryError):
            return None

    def write(self, compiled: Any, weights_bytes: int) -> Any | None:
        """Keep this model, which `read` did not have, unless its weights are large or OpenVINO is known not to read it back.

        The model as it is read back, or None: the one given holds memory that this one does not.
        """
        facts = self._facts()
        if weights_bytes > LARGEST_BYTES or (facts is not None and not facts["readable"]):
            return None
        busy = NotWritableError(f"another process writes `{self._folder}`", hint="wait until it is done")
        with suppress(NomoatError, OSError, RuntimeError), whole_files.alone(self._folder, busy=busy):
            exported = io.BytesIO()
            compiled.export_model(exported)
            with exported.getbuffer() as content:
                system_errors.require_free_disk(self._folder, content.nbytes)
                self._save(content)
            if (again := self.read()) is None:
                self._save(None)
            return again
        return None

    def _save(self, exported: memoryview | None) -> None:
        """None: OpenVINO does not read back what it wrote."""
        facts = {"key": self._key, "readable": exported is not None, "bytes": 0 if exported is None else exported.nbytes}
        with whole_files.whole_folder(self._folder) as part:
            if exported is not None:
                (part / BLOB).write_bytes(exported)
            (part / FACTS).write_text(json.dumps(facts), encoding="utf-8", newline="\n")

    def _facts(self) -> dict[str, Any] | None:
        """What is known of the copy that is there, if it is one of this model as it would be compiled now."""
        try:
            facts: dict[str, Any] = json.loads((self._folder / FACTS).read_text(encoding="utf-8"))
            whole = facts["key"] == self._key and isinstance(facts["readable"], bool) and isinstance(facts["bytes"], int)
            return facts if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
