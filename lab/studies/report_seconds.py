"""Seconds that a report of many scans takes in Chromium: to open, filter, sort and scroll; and the size of its files.

    python -m lab.studies.report_seconds OUT/report.html --pictures FOLDER

OUT is a folder of results, for example of ``python -m lab.studies.many_scans --keep FOLDER``. A step ends when the
browser has painted its result. Exit code 1 if a file is larger than 30 MB or the browser reports a problem.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from browser import Browser, find_chromium

LARGEST_MB = 30
PAINTED = "await new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
FIND = "{const f = document.getElementById('find'); f.value = %r; f.dispatchEvent(new Event('input'))}"
SHOW = "{const s = document.getElementById('show'); s.value = %r; s.dispatchEvent(new Event('change'))}"
SORT = "[...document.querySelectorAll('#table th button')].find(b => b.textContent === %r).click();"
SCROLL = "{const v = document.querySelector('.long'); v.scrollTop = v.scrollHeight * %s;}"
STEPS = {
    "find one scan": FIND % "000777",
    "find a word of many rows": FIND % "case",
    "show what is to review": SHOW % "flagged",
    "show all": SHOW % "all" + FIND % "",
    "sort by scan": SORT % "Scan",
    "sort by confidence": SORT % "Confidence",
    "sort by confidence, downwards": SORT % "Confidence",
    "scroll to the middle": SCROLL % 0.5,
    "scroll to the end": SCROLL % 1,
}


def measure(browser: Browser, expression: str) -> float:
    """Return the milliseconds until the result of an expression is painted."""
    code = (
        f"(async () => {{const begun = performance.now(); {expression} {PAINTED} return performance.now() - begun;}})()"
    )
    return float(browser.ask(f"(async () => {{{code}}})()"))


def opened(browser: Browser, path: Path) -> float:
    """Return the seconds until a page is loaded and painted."""
    begun = time.perf_counter()
    browser.open(path)
    measure(browser, "")
    return time.perf_counter() - begun


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--pictures", type=Path, help="write screenshots here")
    given = parser.parse_args()
    further = sorted((given.report.parent / f"{given.report.stem}_scans").glob("*.html"))
    sizes = {path: path.stat().st_size / 1e6 for path in (given.report, *further)}
    print(f"{len(sizes)} files, {sum(sizes.values()):.1f} MB; {given.report.name} {sizes[given.report]:.1f} MB")
    print(f"the largest has {max(sizes.values()):.1f} MB")
    with Browser(find_chromium() or sys.exit("no Chromium on this machine")) as browser:
        seconds, elements = opened(browser, given.report), browser.ask("document.querySelectorAll('*').length")
        print(f"open: {seconds:.2f} s, {elements} elements")
        for number, (name, expression) in enumerate(STEPS.items()):
            count = "document.getElementById('count').textContent"
            print(f"{name}: {measure(browser, expression):.0f} ms, {browser.ask(count)}")
            if given.pictures:
                browser.ask("document.getElementById('cases').scrollIntoView()")
                browser.picture(given.pictures / f"{number}_{name.replace(' ', '_')}.png")
        for path in (further[:1] + further[-1:]) if further else []:
            print(f"open {path.name} ({sizes[path]:.1f} MB): {opened(browser, path):.2f} s")
            if given.pictures:
                browser.picture(given.pictures / f"{path.stem}.png")
        problems = [text for text in browser.problems if "GL Driver Message" not in text]
    print("\n".join(problems) or "no problem in the console")
    return int(bool(problems) or max(sizes.values()) > LARGEST_MB)


if __name__ == "__main__":
    sys.exit(main())
