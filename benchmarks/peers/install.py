"""Peers come into an environment of the benchmark's own: nothing is installed into this one, and no root is needed.

Python packages go to `.bench-venv`, Debian packages are unpacked into `.bench-debian` (a program of that name that is
on the path is taken instead). What cannot be had is Unavailable, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.systems import Unavailable

VENV, DEBIAN = ROOT / ".bench-venv", ROOT / ".bench-debian"
PIP_SECONDS, APT_SECONDS = 300, 120


def python_with(*packages: str) -> str:
    """The python of `.bench-venv` with these packages in it. Raises Unavailable."""
    python = VENV / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(VENV)], PIP_SECONDS)
    done, wanted = VENV / "installed", "\n".join(packages)
    if done.exists() and wanted in done.read_text().split("\n\n"):
        return str(python)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], PIP_SECONDS)
    with done.open("a") as file:
        file.write(f"{wanted}\n\n")
    return str(python)


def debian(program: str, inside: str, *packages: str) -> tuple[str, dict[str, str]]:
    """Where a program is, and the environment it needs. Raises Unavailable."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found:
        return found, {}
    unpacked = DEBIAN / program
    if not (unpacked / inside).exists():
        _unpack(packages, unpacked)
    if not (unpacked / inside).exists():
        raise Unavailable(f"{program} is not in the Debian packages {', '.join(packages)}")
    return str(unpacked / inside), {"LD_LIBRARY_PATH": libraries(unpacked)}


def _unpack(packages: tuple[str, ...], place: Path) -> None:
    """Those that exist under these names; names differ between releases."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("it comes as a Debian package, and this is no Debian")
    place.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["apt-get", "download", package], cwd=place, capture_output=True, timeout=APT_SECONDS)
    for file in place.glob("*.deb"):
        _run(["dpkg-deb", "-x", file.name, "."], APT_SECONDS, place)


def libraries(unpacked: Path) -> str:
    """Every folder with shared objects in it."""
    folders = {str(it.parent) for it in unpacked.rglob("*.so*")}
    return os.pathsep.join(sorted(folders))


def modules(program: str) -> str:
    """Where an unpacked program finds its plug-ins: the folders named after it below a folder of libraries."""
    folders = {str(it.parent) for it in (DEBIAN / program).rglob(f"{program}/*/*.so")}
    return os.pathsep.join(sorted(folders))


def _run(command: list[str], seconds: int, directory: Path | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=directory)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(command[0]).name} did not do: {type(error).__name__}") from None
    if done.returncode:
        raise Unavailable(f"it could not be installed: {done.stderr.strip()[-300:]}")
