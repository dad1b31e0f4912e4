"""Download public data sets through MONAI, with the addresses and checksums of its tables.

The ten sets of the Medical Segmentation Decathlon (Antonelli et al. 2022, Nature Communications 13:4128).
"""

from __future__ import annotations

import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from medfewshot.datasets.json_file import read_json
from medfewshot.errors import InputError, did_you_mean

TABLE = "dataset.json"
ROOM = 1.1
"""Disk space per byte of an archive once it is unpacked; the scans in it are compressed already."""


@dataclass(frozen=True)
class PublicSet:
    """What to know before a download. ``size_gb``: rough size of the archive in GB (1e9 bytes)."""

    name: str
    modality: str
    structures: tuple[str, ...]
    size_gb: float
    licence: str = "CC BY-SA 4.0"
    source: str = "Medical Segmentation Decathlon"

    @property
    def size_text(self) -> str:
        """Download size, e.g. ``430 MB``."""
        return f"{self.size_gb:g} GB" if self.size_gb >= 1 else f"{1000 * self.size_gb:g} MB"


PUBLIC_SETS: dict[str, PublicSet] = {
    one.name: one
    for one in (
        PublicSet("Task01_BrainTumour", "MR, 4 channels", ("oedema", "non-enhancing tumour", "enhancing tumour"), 7.1),
        PublicSet("Task02_Heart", "MR", ("left atrium",), 0.43),
        PublicSet("Task03_Liver", "CT", ("liver", "tumour"), 27),
        PublicSet("Task04_Hippocampus", "MR", ("anterior", "posterior"), 0.027),
        PublicSet("Task05_Prostate", "MR, 2 channels", ("peripheral zone", "transition zone"), 0.23),
        PublicSet("Task06_Lung", "CT", ("tumour",), 8.5),
        PublicSet("Task07_Pancreas", "CT", ("pancreas", "tumour"), 11.5),
        PublicSet("Task08_HepaticVessel", "CT", ("vessel", "tumour"), 8.7),
        PublicSet("Task09_Spleen", "CT", ("spleen",), 1.5),
        PublicSet("Task10_Colon", "CT", ("colon cancer",), 5.8),
    )
}


def find_set(name: str) -> PublicSet:
    """Return the set of this name."""
    if name not in PUBLIC_SETS:
        near = did_you_mean(name, PUBLIC_SETS)
        raise InputError(f"{name}: is no public set that MONAI can fetch{near}", "medfewshot data list names them")
    return PUBLIC_SETS[name]


def is_there(name: str, folder: Path) -> bool:
    """Return whether ``folder`` contains the unpacked set."""
    return (folder / name / TABLE).is_file()


def checksum_of(name: str) -> str | None:
    """MD5 of the archive in MONAI's table, or None."""
    from monai.apps import DecathlonDataset

    return DecathlonDataset.md5.get(name)


def fetch(name: str, folder: Path, progress: bool = False) -> bool:
    """Download and unpack a set into ``folder / name``, in the Decathlon layout.

    An archive ``folder / NAME.tar`` is unpacked without a network. A folder with its final name is complete: the work
    is done in a hidden folder beside it.

    Args:
        name: Of the set, see ``PUBLIC_SETS``.
        folder: Where to put it.
        progress: Show a bar, if tqdm is installed.

    Returns:
        False if the set was there already.

    Raises:
        InputError: Unknown name, no network, a wrong checksum, too little space, or a folder of that name without a
            ``dataset.json``.
        OSError: The disk.
    """
    wanted, target, given = find_set(name), folder / name, folder / f"{name}.tar"
    if is_there(name, folder):
        return False
    if target.exists():
        raise InputError(f"{target}: contains no {TABLE}", "complete it, or remove it and fetch again")
    checksum = checksum_of(name)
    if checksum is None:
        raise InputError(f"{name}: MONAI knows no checksum of it", _remedy(name, folder))
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(wanted, folder, given.is_file())
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as hidden, _undisturbed(Path(hidden)):
        archive = given if given.is_file() else Path(hidden) / given.name
        _unpacked(name, folder, archive, checksum, Path(hidden), progress).rename(target)
    return True


def _unpacked(name: str, folder: Path, archive: Path, checksum: str, hidden: Path, progress: bool) -> Path:
    """Download ``archive`` if it is not there, check it and unpack it into ``hidden``. Returns the set's folder."""
    from monai.apps import DecathlonDataset, download_url, extractall
    from monai.apps.utils import HashCheckError

    try:
        if not archive.is_file():
            download_url(DecathlonDataset.resource[name], archive, checksum, "md5", progress)
        extractall(archive, hidden / "unpacked", checksum, "md5")
        found = hidden / "unpacked" / name
        for litter in found.rglob("._*"):  # what macOS adds to an archive
            litter.unlink()
        if read_json(found) is None:  # it also checks that every scan of the table is there
            raise FileNotFoundError(f"{TABLE} is missing")
    except HashCheckError:
        what = archive if archive.parent == folder else f"{name}: the download"
        raise InputError(f"{what}: is not the archive that MONAI knows (MD5 differs)", _remedy(name, folder)) from None
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        cause = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise InputError(f"{name}: cannot be downloaded ({cause})", _remedy(name, folder)) from None
    except (tarfile.TarError, EOFError, RuntimeError, FileNotFoundError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: cannot be unpacked ({cause})", _remedy(name, folder)) from None
    return found


def _remedy(name: str, folder: Path) -> str:
    return f"get {name}.tar elsewhere, put it into {folder} (or its content into {folder / name}), and try again"


def _check_space(wanted: PublicSet, folder: Path, have_archive: bool) -> None:
    needed = wanted.size_gb * (ROOM if have_archive else 1 + ROOM)
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise InputError(
            f"{folder}: has {free:.1f} GB free, {wanted.name} needs {needed:.1f}",
            "give another folder",
            setting="output",
        )


@contextmanager
def _undisturbed(hidden: Path) -> Iterator[None]:
    """MONAI downloads into the system's temporary folder, often too small, and logs to standard output."""
    logger, before = logging.getLogger("monai.apps"), tempfile.tempdir
    silent = logger.disabled
    logger.disabled, tempfile.tempdir = True, str(hidden)
    try:
        yield
    finally:
        logger.disabled, tempfile.tempdir = silent, before
