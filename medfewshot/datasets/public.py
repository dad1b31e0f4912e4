"""Public sets, fetched through MONAI's own downloader: addresses and checksums are those of its tables.

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
    """What is worth knowing before it is downloaded."""

    name: str
    modality: str
    structures: tuple[str, ...]
    size_gb: float
    """Of the archive, roughly, in GB (1e9 bytes)."""
    licence: str = "CC BY-SA 4.0"
    source: str = "Medical Segmentation Decathlon"

    @property
    def size_text(self) -> str:
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
    """Raises InputError where no public set has this name."""
    if name not in PUBLIC_SETS:
        near = did_you_mean(name, PUBLIC_SETS)
        raise InputError(f"{name}: is no public set that MONAI can fetch{near}; medfewshot data list names them")
    return PUBLIC_SETS[name]


def is_there(name: str, folder: Path) -> bool:
    """Whether ``folder`` holds the set, unpacked."""
    return (folder / name / TABLE).is_file()


def checksum_of(name: str) -> str | None:
    """MD5 of the archive as MONAI knows it; None where it knows none."""
    from monai.apps import DecathlonDataset

    return DecathlonDataset.md5.get(name)


def fetch(name: str, folder: Path, progress: bool = False) -> bool:
    """Have the set ``name`` in ``folder / name``, in MSD layout; False where it was there already.

    An archive ``folder / NAME.tar`` that somebody put there is unpacked without a network. What is under a final name
    is whole: all work is done in a hidden folder beside it, which is gone afterwards. ``progress``: a bar, where there
    is tqdm.

    Raises:
        InputError: an unknown name, no network, an archive that is not the one whose checksum MONAI knows, too little
            space, or a folder of that name without a ``dataset.json``.
        OSError: the disk.
    """
    wanted, target, given = find_set(name), folder / name, folder / f"{name}.tar"
    if is_there(name, folder):
        return False
    if target.exists():
        raise InputError(f"{target}: is there, but holds no {TABLE}; complete it, or remove it and fetch again")
    checksum = checksum_of(name)
    if checksum is None:
        raise InputError(f"{name}: MONAI knows no checksum of it; {_remedy(name, folder)}")
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(wanted, folder, given.is_file())
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as hidden, _undisturbed(Path(hidden)):
        archive = given if given.is_file() else Path(hidden) / given.name
        _unpacked(name, folder, archive, checksum, Path(hidden), progress).rename(target)
    return True


def _unpacked(name: str, folder: Path, archive: Path, checksum: str, hidden: Path, progress: bool) -> Path:
    """Download where ``archive`` is not there, check it, unpack it into ``hidden``; where the set then lies."""
    from monai.apps import DecathlonDataset, download_url, extractall
    from monai.apps.utils import HashCheckError

    try:
        if not archive.is_file():
            download_url(DecathlonDataset.resource[name], archive, checksum, "md5", progress)
        extractall(archive, hidden / "unpacked", checksum, "md5")
        found = hidden / "unpacked" / name
        for litter in found.rglob("._*"):  # what macOS adds to an archive
            litter.unlink()
        read_json(found / TABLE)  # every scan that it names is there
    except HashCheckError:
        what = f"{archive}: is" if archive.parent == folder else f"{name}: what came is"
        raise InputError(f"{what} not the archive that MONAI knows (MD5 differs); {_remedy(name, folder)}") from None
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        told = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise InputError(f"{name}: cannot be downloaded ({told}); {_remedy(name, folder)}") from None
    except (tarfile.TarError, EOFError, RuntimeError, FileNotFoundError) as error:
        raise InputError(f"{name}: cannot be unpacked ({_first_line(error)}); {_remedy(name, folder)}") from None
    return found


def _remedy(name: str, folder: Path) -> str:
    return f"get {name}.tar elsewhere, put it into {folder} (or what it holds into {folder / name}), and try again"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_space(wanted: PublicSet, folder: Path, have_archive: bool) -> None:
    needed = wanted.size_gb * (ROOM if have_archive else 1 + ROOM)
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise InputError(
            f"{folder}: has {free:.1f} GB free, {wanted.name} needs {needed:.1f}; give another folder with -o"
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
