"""What a figure was measured on, and what the kernel says a process has used. Linux; elsewhere parts stay unknown."""

from __future__ import annotations

import os
import platform
import sysconfig
from contextlib import suppress
from pathlib import Path

import msgspec

UNKNOWN = "unknown"


class Machine(msgspec.Struct, frozen=True):
    """Named at the top of every report: figures of different machines do not compare."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    file_system: str
    load_average: float

    def line(self) -> str:
        memory = f"{self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else UNKNOWN
        parts = (self.cpu, f"{self.cores} cores", memory, self.system, self.python, f"data on {self.file_system}")
        return " · ".join((*parts, f"load {self.load_average:.1f} at the start"))


def machine(directory: Path) -> Machine:
    """`directory`: where the data of the run will be."""
    with suppress(OSError, AttributeError):
        return _machine(directory, os.getloadavg()[0])
    return _machine(directory, 0.0)


def _machine(directory: Path, load_average: float) -> Machine:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()}"
    return Machine(_cpu(), cores, _memory(), system, _python(), _file_system(directory), load_average)


def _python() -> str:
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return f"{platform.python_implementation()} {platform.python_version()}{' PGO' if optimised else ''}"


def _cpu() -> str:
    return _value(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine() or UNKNOWN


def _memory() -> int:
    kib = _value(Path("/proc/meminfo"), "MemTotal").partition(" ")[0]
    return int(kib) * 1024 if kib.isdigit() else 0


def _value(file: Path, name: str) -> str:
    """The value of the first `name : value` line; "" if there is none."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _file_system(directory: Path) -> str:
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return file_system_of(str(directory.resolve()), mounts)
    return UNKNOWN


def file_system_of(directory: str, mounts: list[str]) -> str:
    """The type of the file system a directory is on, from the lines of /proc/self/mountinfo."""
    longest, found = -1, UNKNOWN
    for line in mounts:
        before, _, behind = line.partition(" - ")
        fields, kind = before.split(), behind.partition(" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = fields[4]
        if f"{directory}/".startswith(f"{point.rstrip('/')}/") and len(point) >= longest:
            longest, found = len(point), kind
    return found


# -- processes --------------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants, those that have ended too. 0.0 where unknown."""
    ticks = 0
    for member in process_tree(pid):
        with suppress(OSError, ValueError):
            ticks += _ticks(Path(f"/proc/{member}/stat").read_text())
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(stat: str) -> int:
    """utime, stime, cutime and cstime: fields 14 to 17; the name in field 2 may hold anything, also blanks."""
    return sum(int(it) for it in stat.rpartition(")")[2].split()[11:15])


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        member = waiting.pop()
        found.append(member)
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            with suppress(OSError):
                waiting += [int(it) for it in children.read_text().split()]
    return found


def memory_bytes(pid: int) -> int:
    """Resident memory now. 0 where unknown."""
    return _status_bytes(pid, "VmRSS")


def peak_memory_bytes(pid: int) -> int:
    """The most resident memory since the start or `reset_peak`. 0 where unknown."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Begin to watch for the peak anew; without the right to do so the peak stays that of the whole run."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_bytes(pid: int, name: str) -> int:
    kib = _value(Path(f"/proc/{pid}/status"), name).partition(" ")[0]
    return int(kib) * 1024 if kib.isdigit() else 0
