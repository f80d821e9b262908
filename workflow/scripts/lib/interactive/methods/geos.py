"""GeoS: a segmentation among those that geodesic dilation and erosion of a soft mask give."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.geodesic import STEP
from lib.interactive.graph_cut import energy
from lib.interactive.seeded import Seeded, edges_in_space
from lib.registry import register

BINS = 32  # of the histograms, over the range of the crop
FAR = 1e9
RARE = 1e-3  # of an intensity that no scribble has, before normalisation


@register("geos")
class GeoS(Seeded):
    """Geodesic segmentation with the geodesic symmetric filter, in 2D and 3D.

    1. Histograms of the scribbles of both kinds, smoothed, give each pixel a probability of background M(x), 0 and 1
       at the scribbles themselves.
    2. D(x; M) = min over x' of δ(x, x') + nu · M(x'), the generalised distance to the object; a step of length d (in
       units of the smallest voxel side) costs √(d² + (gamma · ΔX)²). Signed, negative inside:
       D_s(x; M) = D(x; M) - D(x; 1 - M).
    3. For every pair (θ_d, θ_e) of `thresholds` a candidate: the object dilated by θ_d and eroded by θ_e as distances,
       M_d = [D_s > θ_d], M_e = [D_s > -θ_e]; inside is where D_s(x; M_d) + θ_d + D_s(x; M_e) - θ_e < 0, between the
       closing and the opening.
    4. The candidate of least energy: -log probability of its labels + smoothness · contrast-sensitive boundary.

    Distances are exact (Dijkstra, over 8 or 6 neighbours) where the paper scans in rasters. nu, gamma, smoothness and
    the thresholds are ours, for crops of standard deviation 1; the paper's are for its own images.
    Cite: criminisi2008
    """

    def __init__(
        self,
        gamma: float = 10.0,
        nu: float = 20.0,
        smoothness: float = 2.0,
        thresholds: tuple[float, ...] = (0, 1, 2, 4, 8),
    ):
        self.gamma, self.nu, self.smoothness, self.thresholds = gamma, nu, smoothness, tuple(thresholds)

    def begin(self, crop: Crop) -> None:
        super().begin(crop)
        self.edges = edges_in_space(self.image, crop.spacing)
        self.lengths = np.hypot(self.edges.distance, self.gamma * self.edges.difference)
        contrast = np.sqrt(np.square(self.edges.difference).mean()) if self.edges.difference.any() else 1.0
        self.weights = self.smoothness * self.edges.weights(contrast)

    def grow(self, scribbles: np.ndarray) -> np.ndarray:
        background, foreground = (self._likelihood(scribbles == mark) for mark in (BACKGROUND, FOREGROUND))
        soft = background / (background + foreground)
        unary = -np.log(np.stack([soft, 1 - soft]))
        soft = np.select([scribbles == BACKGROUND, scribbles == FOREGROUND], [1, 0], soft)
        signed = self._distance(soft) - self._distance(1 - soft)
        dilated = {theta: self._signed(signed > theta) + theta for theta in self.thresholds}
        eroded = {theta: self._signed(signed > -theta) - theta for theta in self.thresholds}
        best, least = None, np.inf
        for closing in dilated.values():
            for opening in eroded.values():
                candidate = np.where(scribbles > 0, scribbles == FOREGROUND, closing + opening < 0)
                if (value := energy(candidate, unary, self.edges, self.weights, scribbles)) < least:
                    best, least = candidate, value
        return best

    def _likelihood(self, scribbled: np.ndarray) -> np.ndarray:
        """p(colour | kind of the scribble) (*S), channels independent."""
        likelihood = np.ones(scribbled.shape)
        for channel in self.image:
            low, high = channel.min(), channel.max()
            bins = np.minimum((channel - low) / max(high - low, np.finfo(np.float32).tiny) * BINS, BINS - 1).astype(int)
            counts = np.bincount(bins[scribbled], minlength=BINS).astype(float)
            histogram = gaussian_filter1d(counts, 1, mode="constant") / counts.sum() + RARE
            likelihood *= (histogram / histogram.sum())[bins]
        return likelihood

    def _distance(self, soft: np.ndarray) -> np.ndarray:
        """D(x; soft) (*S): from a node outside the grid, whose step to x' costs nu · soft(x')."""
        count, source = soft.size, np.full(soft.size, soft.size)
        costs = np.concatenate([self.lengths, self.nu * soft.ravel() + STEP])
        tails = np.concatenate([self.edges.first, source])
        heads = np.concatenate([self.edges.second, np.arange(count)])
        graph = coo_array((costs, (tails, heads)), shape=(count + 1, count + 1)).tocsr()
        return dijkstra(graph, directed=False, indices=count)[:count].reshape(soft.shape)

    def _signed(self, outside: np.ndarray) -> np.ndarray:
        """D_s(x; outside) of a mask (*S) bool; without a boundary, all is FAR on its side."""
        if outside.all() or not outside.any():
            return np.full(outside.shape, FAR if outside.all() else -FAR)
        # A path to the other side ends with the step across, so each side needs only its own edges and those steps.
        flat = outside.ravel()
        across = flat[self.edges.first] != flat[self.edges.second]
        reached = np.full(flat.size, np.inf)
        for side in (self.edges.first, self.edges.second):
            np.minimum.at(reached, side[across], self.lengths[across])
        at = np.flatnonzero(np.isfinite(reached))
        costs = np.concatenate([self.lengths[~across], reached[at]])
        tails = np.concatenate([self.edges.first[~across], np.full(at.size, flat.size)])
        heads = np.concatenate([self.edges.second[~across], at])
        graph = coo_array((costs, (tails, heads)), shape=(flat.size + 1, flat.size + 1)).tocsr()
        distance = dijkstra(graph, directed=False, indices=flat.size)[:-1]
        return np.where(flat, distance, -distance).reshape(outside.shape)
