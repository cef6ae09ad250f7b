"""
Checks of the queue's file and of the disk that it is on. Nothing is created or changed.
"""

import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from exponea_async._pipeline.commands import project_of
from exponea_async._pipeline.projects import UNKNOWN_PROJECT_HINT
from exponea_async.cli.doctor.finding import Finding
from exponea_async.cli.terminal import duration, number
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError, StorageError
from exponea_async.storage import default_path, is_in_postgres, storage_location
from exponea_async.storage.sqlite.inspection import (
    SCHEMA_VERSION,
    Inspection,
    damaged_copies,
    inspect_queue,
    users_of,
)

#: Less free space than this is reported, and less than that is a failure, in bytes.
LITTLE_SPACE, NO_SPACE = 200_000_000, 10_000_000
#: A write-ahead log that is larger than this is reported, in bytes; it is usually cut at 4 MB.
LARGE_LOG = 64_000_000
#: Records that have waited for longer than this are reported, in seconds.
OLD = 86_400.0
#: The share of the capacity from which on a queue is reported.
NEARLY_FULL = 0.8
#: Where Linux lists what is mounted.
MOUNTS = Path("/proc/self/mountinfo")
#: The file systems of other machines, on which locks and shared memory do not work reliably between machines.
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.s3fs"})
REMOTE |= {"fuse.glusterfs", "glusterfs", "virtiofs", "vboxsf", "davfs", "fuse.davfs2", "fuse.rclone", "fuse.gcsfuse"}
#: The file systems whose content is lost when the machine is restarted.
VOLATILE = frozenset({"tmpfs", "ramfs"})

ELSEWHERE = "Set EXPONEA_STORAGE to the path of a file that this user can write."


def check_storage(configuration: Configuration) -> Iterator[Finding]:
    """Check the file of the queue, and the folder that it is in or would be in."""
    try:
        location = storage_location(configuration)
    except ConfigurationError as error:
        yield Finding.of_error("storage", error)
        return
    if is_in_postgres(configuration):
        # Checked by `doctor.database`.
        yield Finding("storage", "ok", f"the queue is in a database: {location}")
        return
    if not isinstance(location, Path):
        advice = "Set EXPONEA_STORAGE to the path of a file, unless this is a test."
        yield Finding("storage", "warning", "the queue is in memory: events are lost when the process ends", advice)
        return
    path = _path(configuration, location)
    yield from _check_folder(path.parent)
    yield from _check_file(path, configuration)
    copies = damaged_copies(path)
    if copies:
        advice = "They have data of customers in them. Save what you need, and delete them."
        yield Finding("damaged copies", "warning", f"{len(copies)}, the newest is {copies[-1]}", advice)
    yield _check_umask()


def _path(configuration: Configuration, location: Path) -> Path:
    """Return the path as the client opens it: whether it may be a link is a setting."""
    if configuration.queue.follow_links:
        return location
    if configuration.storage is None:
        return default_path(configuration.project_token, configuration.app_group)
    return Path(cast("str | os.PathLike[str]", configuration.storage)).expanduser().absolute()


# The folder


def _check_folder(folder: Path) -> Iterator[Finding]:
    existing = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if not existing.is_dir():
        yield Finding("folder", "failed", f"{existing} is not a folder", ELSEWHERE)
        return
    if not _is_writable(existing):
        yield Finding("folder", "failed", f"this user can't write into {existing}", ELSEWHERE)
    elif existing != folder:
        yield Finding("folder", "ok", f"{folder} does not exist yet; the first start creates it")
    elif folder.stat().st_mode & stat.S_IWOTH and not folder.stat().st_mode & stat.S_ISVTX:
        advice = f"Take the right to write from others: chmod o-w {folder}"
        yield Finding("folder", "warning", f"every user can rename and delete files in {folder}", advice)
    else:
        yield Finding("folder", "ok", f"{folder} can be written")
    yield _check_space(existing)
    yield from _check_file_system(existing)


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _check_space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    if free >= LITTLE_SPACE:
        return Finding("disk space", "ok", f"{_megabytes(free)} are free")
    status = Finding("disk space", "warning", f"only {_megabytes(free)} are free", "Free some disk space.")
    return status if free >= NO_SPACE else Finding(status.name, "failed", status.detail, status.advice)


def _check_file_system(folder: Path) -> Iterator[Finding]:
    with suppress(OSError):
        kind = file_system(folder.resolve(), MOUNTS.read_text())
        if kind in REMOTE:
            advice = (
                "Use a file on a disk of this machine, and give each machine a queue of its own: there, locks between "
                "machines do not work reliably, which can damage the file."
            )
            yield Finding("file system", "warning", f"{folder} is on a network or shared file system, {kind}", advice)
        elif kind in VOLATILE:
            advice = "Use a file on a disk, unless events may be lost with the machine."
            yield Finding("file system", "warning", f"{folder} is in memory, {kind}", advice)
        else:
            yield Finding("file system", "ok", kind or "unknown")


def file_system(path: Path, mounts: str) -> str:
    """
    Return the type of the file system that a path is on, or ``""`` if it is unknown.

    Args:
        path: The path, without links.
        mounts: The content of ``/proc/self/mountinfo``.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) < 5 or not rest.split():
            continue
        # Spaces, tabs, line breaks and backslashes in a path are written as octal numbers.
        point = Path(words[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace"))
        # The last of several mounts on one path is the one that is seen.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    return kind


def _check_umask() -> Finding:
    # The only way to read it is to set it.
    umask = os.umask(0o077)
    os.umask(umask)
    if umask & 0o700:
        advice = "Set it to 077 or 022 before the program starts."
        return Finding("umask", "failed", f"{umask:03o} takes rights from the owner of new files", advice)
    return Finding("umask", "ok", f"{umask:03o}; the queue is readable for its owner only, whatever it is")


# The file


def _check_file(path: Path, configuration: Configuration) -> Iterator[Finding]:
    try:
        if not os.path.lexists(path):
            yield Finding("queue", "ok", f"{path} does not exist yet; the first start creates it")
            return
        inspection = inspect_queue(path)
    except StorageError as error:
        yield Finding.of_error("queue", error)
        return
    except OSError as error:
        yield Finding("queue", "failed", f"{path}: {error.strerror}", ELSEWHERE)
        return
    yield from _check_mode(path)
    yield _check_users(path)
    yield _check_log(path)
    if inspection is None:
        advice = "Start the application, which reads it."
        yield Finding("queue", "skipped", f"{path} can't be read without creating a file beside it", advice)
        return
    yield from _check_content(path, inspection, configuration)


def _check_mode(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        advice = f"The next start corrects it. Until then: chmod 600 {path}"
        yield Finding("file mode", "warning", f"other users can read the queue, {mode:03o}", advice)
    else:
        yield Finding("file mode", "ok", f"{mode:03o}")


def _check_users(path: Path) -> Finding:
    users = users_of(path)
    if not users:
        return Finding("processes", "ok", "no other process is known to have the queue open")
    return Finding("processes", "ok", f"open in {len(users)}: {', '.join(map(_process, users))}")


def _process(pid: int) -> str:
    with suppress(OSError):
        # The kernel cuts it to 15 characters, and the program chooses it.
        return f"{pid} ({Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()})"
    return str(pid) if pid else "one of another container"


def _check_log(path: Path) -> Finding:
    sizes = {"file": path.stat().st_size, "write-ahead log": 0}
    with suppress(FileNotFoundError):
        sizes["write-ahead log"] = Path(f"{path}-wal").stat().st_size
    detail = ", ".join(f"{name} {_megabytes(size)}" for name, size in sizes.items())
    if sizes["write-ahead log"] > LARGE_LOG:
        advice = "Another program reads the file all the time, so that the log can't be emptied. End it."
        return Finding("size", "warning", detail, advice)
    return Finding("size", "ok", detail)


def _check_content(path: Path, inspection: Inspection, configuration: Configuration) -> Iterator[Finding]:
    if inspection.damage:
        advice = (
            "The next start moves it aside, saves what can be read, and goes on in a new file. Copy it before, with "
            "the files beside it, if its content matters."
        )
        yield Finding("queue", "failed", f"{path} is damaged: {inspection.damage}", advice)
        return
    if inspection.version > SCHEMA_VERSION:
        detail = f"{path} has schema version {inspection.version}, and this version supports at most {SCHEMA_VERSION}"
        yield Finding("queue", "failed", detail, "Update exponea-async, or set EXPONEA_STORAGE to another path.")
        return
    if not inspection.version:
        yield Finding("queue", "ok", f"{path} is empty; the first start creates the queue in it")
        return
    checked = "no damage found" if inspection.is_checked else "too large to look for damage"
    old = "" if inspection.version == SCHEMA_VERSION else ", which the next start updates"
    yield Finding("queue", "ok", f"{path}, schema version {inspection.version}{old}, {checked}")
    yield check_waiting(inspection, configuration)
    yield from check_projects(inspection, configuration)
    yield check_letters(inspection.dead)


def check_letters(count: int) -> Finding:
    """Report the number of dead letters."""
    if not count:
        return Finding("dead letters", "ok", "none")
    advice = "'exponea-async queue dead' shows the reasons, and 'exponea-async queue revive' sends them again."
    return Finding("dead letters", "warning", f"{number(count)} were refused for good", advice)


def check_waiting(inspection: Inspection, configuration: Configuration) -> Finding:
    """Check how many records wait, and for how long."""
    waiting = sum(inspection.waiting.values())
    if inspection.oldest is None or not waiting:
        return Finding("waiting", "ok", "no event waits")
    age = time.time() - inspection.oldest
    detail = f"{number(waiting)}, the oldest since {duration(age)}"
    if waiting > NEARLY_FULL * configuration.queue.max_records:
        advice = "Find out why they are not sent, or raise EXPONEA_QUEUE_MAX_RECORDS."
        return Finding("waiting", "warning", f"{detail}; the capacity is {configuration.queue.max_records:,}", advice)
    if age > OLD:
        days = configuration.queue.max_age / 86_400
        advice = f"Start the application, or 'exponea-async flush'. After {days:g} days they become dead letters."
        return Finding("waiting", "warning", detail, advice)
    return Finding("waiting", "ok", detail)


def check_projects(inspection: Inspection, configuration: Configuration) -> Iterator[Finding]:
    """Check whether records wait for projects that nothing names."""
    known = {each.project_token for each in configuration.projects} | inspection.projects
    waiting: Counter[str] = Counter()
    for route, count in inspection.waiting.items():
        waiting[project_of(route)] += count
    for project, count in waiting.items():
        if count and project not in known:
            detail = f"{number(count)} events wait for project {project}, which neither the settings nor the queue name"
            yield Finding("projects", "warning", detail, UNKNOWN_PROJECT_HINT)


def _megabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
