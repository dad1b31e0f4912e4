"""Fixtures that several test files share."""

from __future__ import annotations

import locale
import os
from pathlib import Path

import pytest
from browser import find_chromium
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# A busy machine must not fail a property by its clock, and the same commit must test the same examples twice.
settings.register_profile("medfewshot", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=20_000, print_blob=True)  # make fuzz
settings.load_profile("medfewshot")


def pytest_configure() -> None:
    """Give each worker one thread: torch processes with several threads each slow each other down many times over."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _locale():
    """ITK's DICOM writer, which tests use, leaves the process in the "C" locale."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser; skips the test without one."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium on this machine: install it to run the browser tests")
    return found


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real scans: ``MEDFEWSHOT_DATA``, or ``../shared/data`` beside the repository."""
    named = os.environ.get("MEDFEWSHOT_DATA")
    if named and not Path(named).is_dir():
        pytest.fail(f"MEDFEWSHOT_DATA names no folder: {named}")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip("real scans not found: set MEDFEWSHOT_DATA")
    return root.resolve()
