"""BIFSeg: a network on the box, a graph cut that keeps the scribbles, and fine-tuning on the image at hand."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from lib.errors import BadInput, Diverged
from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.finetuning import certainty_weights, contradicted, label_step, network_step
from lib.interactive.graph_cut import NEIGHBOURHOODS, edges_of
from lib.interactive.instances import resized_scribbles
from lib.interactive.networks import foreground_of, load_network, restored
from lib.models.layers import CHANNELS_LAST
from lib.registry import did_you_mean, register

LADDER = ("network", "graph_cut", "unweighted", "weighted")
DEFAULTS = {  # recalled from the paper, but for the neighbourhood, which is unknown
    2: {"smoothness": 3.0, "sigma": 0.1, "t0": 0.2, "t1": 0.7, "epsilon": 0.2, "omega": 5.0, "neighbourhood": 8},
    3: {"smoothness": 10.0, "sigma": 0.1, "t0": 0.2, "t1": 0.6, "epsilon": 0.2, "omega": 10.0, "neighbourhood": 6},
}


@register("bifseg")
class BIFSeg:
    """BIFSeg and its ablations.

    ablation: how far up the ladder. `network`: what it says of the box. `graph_cut`: then labels of least energy, in
    which scribbles hold. `unweighted`: then the network's classifier is tuned to these labels, and labels to it, in
    turns. `weighted`, the method: tuned only where labels can be trusted, and to the scribbles above all.
    supervised: false hides the scribbles from it: one segmentation per instance. With true, tuning starts with the
    first scribble; until then the user sees what the network says of the box.
    smoothness λ and sigma σ of the pairwise term (σ in standard deviations of the crop), t0, t1, epsilon ε, omega ω of
    the weights (`certainty_weights`), neighbourhood (4 or 8 in 2D, 6 or 26 in 3D): null takes DEFAULTS.
    alternations of label step and network step, the latter with `steps` of gradient descent at the rate `rate`; a last
    label step follows. initial: which labels count as initial beside scribbles, those of the `previous` round (those
    that the user saw) or those of the `network` before any tuning.
    The network is tuned anew for each instance, from its trained weights, and on from round to round of one instance.
    All numbers are recalled, not confirmed; initial, momentum 0, no dropout in tuning, the mean over pixels and the
    last label step are ours (docs/interactive.md). Raises BadInput where tuning meets a network without `features`
    and `classifier`; every architecture can be the network of the first two rungs.
    Cite: wang2018
    """

    needs_seeds = False

    def __init__(
        self,
        network: Path | None = None,
        ablation: str = "weighted",
        supervised: bool = True,
        smoothness: float | None = None,
        sigma: float | None = None,
        t0: float | None = None,
        t1: float | None = None,
        epsilon: float | None = None,
        omega: float | None = None,
        neighbourhood: int | None = None,
        alternations: int = 4,
        steps: int = 20,
        rate: float = 1e-2,
        initial: str = "previous",
    ):
        if network is None:
            raise BadInput("bifseg: network: it needs the folder of a trained network; none was given.")
        if ablation not in LADDER:
            raise BadInput(f"bifseg: ablation: there is no '{ablation}'.{did_you_mean(str(ablation), LADDER)}")
        if initial not in ("previous", "network"):
            raise BadInput(f"bifseg: initial: {initial!r} must be 'previous' or 'network'.")
        self.network = load_network(network)
        given = {
            "smoothness": smoothness,
            "sigma": sigma,
            "t0": t0,
            "t1": t1,
            "epsilon": epsilon,
            "omega": omega,
            "neighbourhood": neighbourhood,
        }
        dims = self.network.spatial_dims
        self.parameters = {key: DEFAULTS[dims][key] if value is None else value for key, value in given.items()}
        _check(self.parameters | {"alternations": alternations, "steps": steps, "rate": rate}, dims)
        self.ablation, self.supervised, self.initial = ablation, supervised, initial
        self.alternations, self.steps, self.rate = alternations, steps, rate
        self.tunes = ablation in ("unweighted", "weighted")
        module = self.network.module
        if self.tunes and not (hasattr(module, "features") and hasattr(module, "classifier")):
            raise BadInput(
                f"bifseg: ablation: {ablation} tunes the classifier of the network, and {type(module).__name__} does "
                "not name one (features, classifier); train pnet or pcnet, or choose network or graph_cut."
            )

    def begin(self, crop: Crop) -> None:
        """Raises BadInput where the network was trained on other channels or axes."""
        self.seen = self.network.see(crop)
        self.edges = edges_of(self.seen.within, self.parameters["neighbourhood"])
        if self.ablation == "weighted":
            self.geodesic_edges = edges_of(self.seen.within, NEIGHBOURHOODS[self.seen.within.ndim - 1][-1])
        self.probability = self.network.foreground(self.seen)
        self.labels = self.initial_labels = self.probability > 0.5  # those that the user saw last; before any tuning
        self.untuned, self.unsupervised = restored(self.probability, self.seen.shape) > 0.5, None  # results
        if self.tunes:
            with torch.no_grad():
                self.features = self.network.module.features(self.network.input(self.seen))
            # Channels last, the classifier's order: twice as fast a step as the other.
            layout = CHANNELS_LAST[self.network.spatial_dims]
            self.features = self.features[(..., *self.seen.inside)].contiguous(memory_format=layout)
            self.classifier = copy.deepcopy(self.network.module.classifier).eval()

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        """scribbles uint8 (*S) to bool (*S), in which they hold.

        Raises BadInput for marks of another shape, Diverged where tuning leaves nothing finite.
        """
        if scribbles.shape != self.seen.shape:
            raise BadInput(f"scribbles of shape {scribbles.shape} do not lie in the box of shape {self.seen.shape}")
        if self.ablation == "network" or (self.supervised and self.tunes and not scribbles.any()):
            return self.untuned
        if self.supervised:
            return self._segmented(scribbles)
        if self.unsupervised is None:
            self.unsupervised = self._segmented(np.zeros_like(scribbles))
        return self.unsupervised

    def _segmented(self, scribbles: np.ndarray) -> np.ndarray:
        chosen, shape = self.parameters, self.probability.shape
        marks = resized_scribbles(scribbles, shape)
        weights = np.ones(shape, np.float32)
        if self.ablation == "weighted":
            initial = self.labels if self.initial == "previous" else self.initial_labels
            silenced = contradicted(initial, marks, self.geodesic_edges, chosen["epsilon"])
        for _ in range(self.alternations if self.tunes else 0):
            self.labels = self._label_step(marks)
            if self.ablation == "weighted":
                about = chosen["t0"], chosen["t1"], chosen["omega"]
                weights = certainty_weights(self.probability, silenced, marks, *about)
            network_step(self.classifier, self.features, self.labels, weights, self.steps, self.rate)
            with torch.no_grad():
                self.probability = foreground_of(self.classifier(self.features))
            if not np.isfinite(self.probability).all():
                raise Diverged(
                    "bifseg: tuning to an object gave probabilities that are not finite, with rate "
                    f"{self.rate} and omega {chosen['omega']}"
                )
        self.labels = self._label_step(marks)
        result = restored(self.labels, self.seen.shape) > 0.5
        result[scribbles == FOREGROUND], result[scribbles == BACKGROUND] = True, False
        return result

    def _label_step(self, marks: np.ndarray) -> np.ndarray:
        return label_step(self.probability, marks, self.edges, self.parameters["smoothness"], self.parameters["sigma"])


def _check(parameters: dict, dims: int) -> None:
    """Raise BadInput for a parameter out of its range."""
    rules = {
        "smoothness": ("at least 0", lambda v: v >= 0),
        "sigma": ("above 0", lambda v: v > 0),
        "t0": ("from 0 to t1", lambda v: 0 <= v <= parameters["t1"]),
        "t1": ("at most 1", lambda v: v <= 1),
        "epsilon": ("at least 0", lambda v: v >= 0),
        "omega": ("at least 0", lambda v: v >= 0),
        "neighbourhood": (f"one of {NEIGHBOURHOODS[dims]} in {dims}D", lambda v: v in NEIGHBOURHOODS[dims]),
        "alternations": ("at least 1", lambda v: v >= 1),
        "steps": ("at least 1", lambda v: v >= 1),
        "rate": ("above 0", lambda v: v > 0),
    }
    for key, (rule, holds) in rules.items():
        if not holds(parameters[key]):
            raise BadInput(f"bifseg: {key}: {parameters[key]!r} must be {rule}.")
