"""Procedural tasks for meta-training: *populations, not pairs*, all of them made up.

Each episode draws a new anatomy (a template of implicit shapes), deforms it into several subjects by diffeomorphic
warps with shift, scale and absence of every structure, and acquires them with one scanner's contrast and artefacts. The
idea that synthetic label maps and random contrasts teach what no data set holds: Hoffmann et al. 2021, "SynthMorph";
Billot et al. 2023, "SynthSeg"; Butoi et al. 2023, "UniverSeg" for synthetic tasks in meta-training.
"""

from medfewshot.synthetic.populations.episodes import Populations, PopulationSettings

__all__ = ["PopulationSettings", "Populations"]
