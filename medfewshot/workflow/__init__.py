"""The one service behind command line, Python API, annotation server, demo and benchmark.

From scans to results: ``find_supports`` and ``read_supports``, ``adapt``, ``open_batch``, ``segment``, ``evaluate`` and
``report``. Long work reports events with named stages to a :class:`~medfewshot.types.Progress`, which can also cancel
the work.

The folder of a run contains these files. Each is written whole or not at all, and the record after each volume, so that
a run can be stopped at any moment and resumed::

    <case>.nii.gz             labels on the input's grid, in the input's format (DICOM: NIfTI, JPEG: PNG)
    previews/<case>.png       a picture of the result
    probabilities/<case>.*    class probabilities, if asked for; uncertainty/<case>.* likewise
    dicom_seg/<case>.dcm      a DICOM segmentation object, if asked for and the input was a DICOM series
    rtstruct/<case>.dcm       an RT structure set, likewise
    seg_nrrd/<case>.seg.nrrd  a segmentation of 3D Slicer, if asked for
    films/<case>.csv          of a film (the labels are then 4D): one row per frame and structure
    films/<case>.png          a plot of the volumes over time
    ejection.csv              of films of the heart: end-diastole, end-systole, ejection fraction
    statistics.csv            one row per case and structure; of a film, in the frame with most labelled voxels
    report.html               all of this on one page, if the report is wanted
    report_scans/*.html       the scans one by one, if they are too many or too large for one file
    report/<case>.npz         what the report's viewer shows; if you delete it, the report reads the scans again
    run.json                  how all this was made

``run.json`` is strict JSON (undefined numbers are null) with these keys:

``format_version``  of this list, now 1
``command``         the command line as a list of words; null for a run from Python
``started``, ``finished``  UTC times; ``finished`` is null until every volume had its turn
``device``          that segmented
``seed``            of the adaptation
``supports``        ``image`` and ``label`` path of each labelled scan
``plan``            what was derived from the supports: see :class:`medfewshot.types.Plan`
``adaptation``      ``settings``, ``device``, ``learner`` (what the learner reports: steps, loss, restarts),
                    ``weights_have_seen`` (data set -> subjects and labels)
``options``         overlap, keep_largest, probabilities, uncertainty
``seconds``         ``plan``, ``adapt`` (once); ``read``, ``prepare``, ``predict``, ``restore``, ``write`` (all volumes)
``outputs``         one entry per volume: ``case``, ``inputs`` (a path per channel), ``status`` (done or failed),
                    ``labels`` and other ``files`` (relative paths), ``seconds``, ``predicted_dice`` (the expected
                    accuracy, calibrated), ``confidence`` (mean probability, not calibrated: for earlier readers),
                    ``frame`` and ``ejections`` (of a film), ``flags`` (reasons to look closely), ``statistics``,
                    ``warnings``, ``error``, ``traceback``
``warnings``        of the adaptation and of every volume
``versions``        of Python, the platform and the packages that results depend on
``fingerprint``     of segmenter and options: results are resumed only if it is the same
"""

from medfewshot.io import VolumeLike, as_volume
from medfewshot.workflow.adapt import adapt, adapt_to_folder, prepare
from medfewshot.workflow.compare import compare
from medfewshot.workflow.continuing import can_continue
from medfewshot.workflow.curve import learning_curve
from medfewshot.workflow.describe import Description, describe
from medfewshot.workflow.evaluate import evaluate, write_scores
from medfewshot.workflow.films import SegmentedFilm, segment_film
from medfewshot.workflow.one_case import Batch, SavedModel
from medfewshot.workflow.record import REPORT, RUN_RECORD, STATISTICS, CaseResult, read_record, read_run
from medfewshot.workflow.report import report
from medfewshot.workflow.segment import RunResult, open_batch, segment
from medfewshot.workflow.supports import LabelledScans, SupportSource, check_background, find_supports, read_supports
from medfewshot.workflow.volumes import channels_a_scan, check_channels, check_folder, find_cases, read_cohort

__all__ = [
    "REPORT", "RUN_RECORD", "STATISTICS", "Batch", "CaseResult", "Description", "LabelledScans", "RunResult",
    "SegmentedFilm", "SavedModel", "SupportSource", "VolumeLike", "adapt", "adapt_to_folder", "as_volume",
    "can_continue", "channels_a_scan", "check_background", "check_channels", "check_folder", "compare", "describe",
    "evaluate", "find_cases", "find_supports", "learning_curve", "open_batch", "prepare", "read_cohort", "read_record",
    "read_run", "read_supports", "report", "segment", "segment_film", "write_scores",
]  # fmt: skip
