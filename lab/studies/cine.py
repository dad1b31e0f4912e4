"""How well are films of the heart segmented? ACDC through the command line: Dice, ejection fraction, processor seconds.

    python -m lab.studies.cine --data ../shared/data OUT --only own      # label of end-diastole alone, whole film
    python -m lab.studies.cine --data ../shared/data OUT --only k1 k3    # labelled frames of other patients
    python -m lab.studies.cine OUT --memory 512 512 1 40                 # memory of a film of this size, made up

``own``: the other labelled frame of the same patient is scored. ``k1``: each patient in turn is the example, with both
labelled frames; ``k3``: each three. The labelled frames of the others are segmented, as volumes unless ``--films``.
Every result is a row of ``OUT/records.csv``; what is there is not run again. Choices were made on two patients.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from medfewshot.structures import dice

NAMES = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
CHOSEN_ON = ("patient023", "patient025")
FIELDS = ("setting", "example", "patient", "frame", "label", "dice", "ef_error_points", "cpu_seconds_a_film", "steps")


class Patients:
    """Films and labels of the data set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(path.name.removesuffix(".nii.gz") for path in (root / "imagesTr").glob("*.nii.gz"))

    def film(self, name: str) -> Path:
        """Return the file of a film."""
        return self.root / "imagesTr" / f"{name}.nii.gz"

    def labels(self, name: str) -> np.ndarray:
        """Return the labels ``(X, Y, Z, T)`` of a film; 255 is not labelled."""
        return np.asarray(nib.load(self.root / "labelsTr" / f"{name}.nii.gz").dataobj, np.uint8)

    def labelled(self, name: str) -> list[int]:
        """Return the numbers of the labelled frames, end-diastole first."""
        labels = self.labels(name)
        frames = [t for t in range(labels.shape[3]) if (labels[..., t] != 255).any()]
        return sorted(frames, key=lambda t: -int((labels[..., t] == 3).sum()))


def segment(scans: Sequence[Path], supports: Sequence[tuple[Path, Path]], out: Path, words: Sequence[str]) -> float:
    """Run ``medfewshot segment``; returns its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = [word for image, label in supports for word in ("--support", f"{image}={label}")]
    labels = ",".join(f"{value}={name}" for value, name in NAMES.items())
    command = [sys.executable, "-m", "medfewshot", "segment", *map(str, scans), *given, "-o", str(out)]
    command += ["--labels", labels, "--budget", "inf", "--device", "cpu", "--overwrite", "--no-previews", "--no-report"]
    subprocess.run([*command, "-q", *words], check=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def rows(
    setting: str, example: str, name: str, found: dict[int, np.ndarray], patients: Patients, seconds: float,
    scored: Sequence[int], steps: str,
) -> list[dict[str, object]]:  # fmt: skip
    """Score frames; the two labelled frames give the ejection fraction of the left ventricle."""
    truth, (diastole, systole) = patients.labels(name), patients.labelled(name)
    sizes = [
        [(one == 3).sum() for one in (get(diastole), get(systole))] for get in (found.get, lambda t: truth[..., t])
    ]
    error = 100 * (1 - sizes[0][1] / sizes[0][0]) - 100 * (1 - sizes[1][1] / sizes[1][0])
    return [
        {"setting": setting, "example": example, "patient": name, "frame": frame, "label": label,
         "dice": round(dice(found[frame] == value, truth[..., frame] == value), 4), "ef_error_points": round(error, 2),
         "cpu_seconds_a_film": round(seconds, 1), "steps": steps}
        for frame in scored for value, label in NAMES.items()
    ]  # fmt: skip


def own(patients: Patients, name: str, out: Path, words: Sequence[str]) -> list[dict[str, object]]:
    """Segment a film from its own frame of end-diastole."""
    diastole, systole = patients.labelled(name)
    image = nib.load(patients.film(name))
    label = out / "labels" / f"{name}.nii.gz"
    label.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(patients.labels(name)[..., diastole], image.affine), label)
    film = patients.film(name)
    seconds = segment([film], [(film, label)], out / "own" / name, ["--frame", str(diastole), *words])
    found = np.asarray(nib.load(out / "own" / name / film.name).dataobj)
    frames = {t: found[..., t] for t in (diastole, systole)}
    return rows("own", name, name, frames, patients, seconds, [systole], " ".join(words))


def others(
    patients: Patients, examples: Sequence[str], out: Path, words: Sequence[str], *, films: bool
) -> list[dict[str, object]]:
    """Segment the other patients from both labelled frames of the examples."""
    setting, named = f"k{len(examples)}", "+".join(examples)
    supports = [(patients.film(name), patients.root / "labelsTr" / f"{name}.nii.gz") for name in examples]
    folder, result = out / "frames", []
    queries = {name: [folder / f"{name}_{t}.nii.gz" for t in patients.labelled(name)] for name in patients.names}
    todo = [name for name in patients.names if name not in examples]
    folder.mkdir(parents=True, exist_ok=True)
    for name in todo:
        image = nib.load(patients.film(name))
        for path, t in zip(queries[name], patients.labelled(name), strict=True):
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj[..., t]), image.affine), path)
    scans = [patients.film(name) for name in todo] if films else [path for name in todo for path in queries[name]]
    seconds = segment(scans, supports, out / setting / named, words) / len(todo)
    for name in todo:
        if films:
            film = np.asarray(nib.load(out / setting / named / patients.film(name).name).dataobj)
            found = {t: film[..., t] for t in patients.labelled(name)}
        else:
            pairs = zip(patients.labelled(name), queries[name], strict=True)
            found = {t: np.asarray(nib.load(out / setting / named / path.name).dataobj) for t, path in pairs}
        kind = f"{setting} films" if films else setting
        result += rows(kind, named, name, found, patients, seconds, patients.labelled(name), " ".join(words))
    return result


def memory(out: Path, shape: Sequence[int], words: Sequence[str]) -> None:
    """Segment a made-up film ``(X, Y, Z, T)`` from its first frame, and print the most memory that it took."""
    out.mkdir(parents=True, exist_ok=True)
    x, y, generator = *np.mgrid[: shape[0], : shape[1]], np.random.default_rng(0)
    film, label = out / f"film_{'x'.join(map(str, shape))}.nii.gz", out / "first.nii.gz"
    truth = np.stack([np.hypot(x - shape[0] / 2 - t / 2, y - shape[1] / 2) < shape[0] / 6 for t in range(shape[3])], -1)
    speckle = generator.rayleigh(20, shape)
    nib.save(nib.Nifti1Image((speckle * (1 + truth[:, :, None])).astype(np.int16), np.eye(4)), film)
    nib.save(nib.Nifti1Image(np.repeat(truth[:, :, None, 0], shape[2], 2).astype(np.uint8), np.eye(4)), label)
    seconds = segment(
        [film], [(film, label)], out / film.name.split(".")[0], ["--frame", "0", "--labels", "1=cavity", *words]
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{'x'.join(map(str, shape))}: at most {peak:.2f} GB, {seconds:.0f} processor seconds")


def show(records: Sequence[dict[str, str]]) -> None:
    """Print a table: mean Dice of each setting, for all patients and without those that choices were made on."""
    print("| setting | patients | RV | myocardium | LV | mean | EF error, points | processor s a film |")
    print("|---|---|---|---|---|---|---|---|")
    for setting in dict.fromkeys(one["setting"] for one in records):
        for shown, chosen in (("all", ()), ("not used for choices", CHOSEN_ON)):
            these = [one for one in records if one["setting"] == setting and one["patient"] not in chosen]
            if not these:
                continue
            by_label = [
                np.mean([float(one["dice"]) for one in these if one["label"] == label]) for label in NAMES.values()
            ]
            errors = {(one["example"], one["patient"]): abs(float(one["ef_error_points"])) for one in these}
            seconds = np.mean([float(one["cpu_seconds_a_film"]) for one in these])
            numbers = (f"{value:.3f}".lstrip("0") for value in (*by_label, np.mean(by_label)))
            error = np.mean(list(errors.values()))
            print(f"| {setting} | {shown} ({len(errors)}) | {' | '.join(numbers)} | {error:.1f} | {seconds:.0f} |")


def main() -> None:
    """Run what is not recorded yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--memory", type=int, nargs=4, metavar=("X", "Y", "Z", "FRAMES"), help="measure this alone")
    parser.add_argument("--only", nargs="*", default=["own", "k1", "k3"])
    parser.add_argument("--patients", nargs="*", help="examples to run; default: all")
    parser.add_argument("--films", action="store_true", help="segment whole films in k1 and k3")
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, default=[], help="further options of segment; they come last"
    )
    given = parser.parse_args()
    if given.memory:
        memory(given.out, given.memory, given.words)
        return
    patients, table = Patients(given.data / "heart-cine-acdc"), given.out / "records.csv"
    given.out.mkdir(parents=True, exist_ok=True)
    records = list(csv.DictReader(table.open())) if table.is_file() else []
    for setting in given.only:
        for name in given.patients or patients.names:
            example = [one for one in patients.names if one != name] if setting == "k3" else [name]
            kind = f"{setting} films" if given.films and setting != "own" else setting
            if any((one["setting"], one["example"]) == (kind, "+".join(example)) for one in records):
                continue
            if setting == "own":
                found = own(patients, name, given.out, given.words)
            else:
                found = others(patients, example, given.out, given.words, films=given.films)
            records += [{key: str(value) for key, value in row.items()} for row in found]
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(records)
    show(records)


if __name__ == "__main__":
    main()
