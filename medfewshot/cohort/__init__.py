"""Segment many volumes into a folder: outputs, pictures, statistics and a record of how they came about.

Every file is written whole or not at all, and the record as volumes are done, so that a run can be stopped at any
moment and resumed. One bad volume does not stop the rest. The folder then holds::

    <case>.nii.gz             labels on the input's grid, in the input's format (DICOM: NIfTI, JPEG: PNG)
    previews/<case>.png       a picture of the result
    probabilities/<case>.*    class probabilities, where asked for; uncertainty/<case>.* likewise
    dicom_seg/<case>.dcm      a DICOM segmentation object, where asked for and the input was a DICOM series
    statistics.csv            one row per case and structure
    report.html               all of this on one page, if the report is wanted
    report/<case>.npz         what the report's viewer shows; if you delete it, the report reads the scans again
    run.json                  how all this came about

``run.json`` is strict JSON (undefined numbers are null) with these keys:

``format_version``  of this list, now 1
``command``         the command line as a list of words; null for a run from Python
``started``, ``finished``  UTC times; ``finished`` is null until every volume had its turn
``device``          that segmented
``seed``            of the adaptation
``supports``        ``image`` and ``label`` path of each labelled scan
``plan``            what was derived from the supports: see :class:`medfewshot.types.Plan`
``adaptation``      ``settings``, ``device``, ``learner`` (what the learner reports: steps, loss, restarts)
``options``         overlap, keep_largest, probabilities, uncertainty
``seconds``         ``plan``, ``adapt`` (once); ``read``, ``prepare``, ``predict``, ``restore``, ``write`` (all volumes)
``outputs``         one entry per volume: ``case``, ``inputs`` (a path per channel), ``status`` (done or failed),
                    ``labels`` and other ``files`` (relative paths), ``seconds``, ``confidence`` (mean probability of
                    each structure), ``predicted_dice`` (what the probabilities expect), ``flags`` (what is unlike the
                    supports), ``statistics``, ``warnings``, ``error``
``warnings``        of the adaptation and of every volume
``versions``        of Python, the platform and the packages that results depend on
``fingerprint``     of segmenter and options: results are resumed only where it is the same
"""

from medfewshot.cohort.inputs import check_folder, find_cases
from medfewshot.cohort.page import REPORT, write_report
from medfewshot.cohort.record import RUN_RECORD, STATISTICS, CohortOptions, VolumeResult
from medfewshot.cohort.run import CohortResult, check_results_folder, segment_cohort

__all__ = [
    "REPORT",
    "RUN_RECORD",
    "STATISTICS",
    "CohortOptions",
    "CohortResult",
    "VolumeResult",
    "check_folder",
    "check_results_folder",
    "find_cases",
    "segment_cohort",
    "write_report",
]
