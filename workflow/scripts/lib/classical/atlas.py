"""Segmentation by registration: labels of training patients, warped onto the image, vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib.classical import Remember, Subject
from lib.data.store import IGNORE
from lib.errors import BadInput
from lib.registry import register

if TYPE_CHECKING:
    import SimpleITK as sitk

SHRINKS = (4, 2, 1)  # of the affine registration; the deformable one leaves out the first
SMALLEST = 8  # voxels that an axis keeps
SAMPLED = 0.2  # of the voxels, for the affine metric
STEPS = {"affine": 100, "demons": 40}  # at each resolution
SMOOTHING = 1.0  # SD in voxels of the demons' field


@register("atlas")
class Atlas:
    """Multi-atlas segmentation: affine and demons registration, majority vote (Heckemann et al. 2006).

    atlases: how many training cases are warped, evenly spaced in the order of their names. deformable: demons after the
    affine registration, which maximises mutual information. channel: of the image that is registered. Volumes are
    registered in space also where networks see slices. A vote without majority goes to the lower class.

    Cite: heckemann2006, mattes2003, vercauteren2009
    """

    def __init__(self, atlases: int = 5, deformable: bool = True, channel: int = 0):
        if not isinstance(atlases, int) or isinstance(atlases, bool) or atlases < 1:
            raise BadInput(f"atlases: {atlases!r} must be a whole number, 1 or more.")
        if not isinstance(channel, int) or channel < 0:
            raise BadInput(f"channel: {channel!r} must be the number of a channel of the image, from 0.")
        self.atlases, self.deformable, self.channel = atlases, bool(deformable), channel

    def fit(self, training: Sequence[Subject], classes: int, remember: Remember) -> dict:
        chosen = np.unique(np.linspace(0, len(training) - 1, self.atlases).round().astype(int))
        self.chosen = [training[number] for number in chosen]
        self.classes, self.remember = classes, remember
        return {"atlases": [subject.name for subject in self.chosen]}

    def segment(self, subject: Subject) -> np.ndarray:
        votes = np.zeros((self.classes, *subject.image.shape[1:]), np.uint8)
        for atlas in self.chosen:
            warped = self.remember(f"{atlas.name}-on-{subject.name}", lambda atlas=atlas: self._warped(atlas, subject))
            for number in range(self.classes):
                votes[number] += warped == number
        return votes.argmax(axis=0).astype(np.uint8)

    def _warped(self, atlas: Subject, subject: Subject) -> np.ndarray:
        """The label of the atlas on the grid of the subject, (*S) uint8; IGNORE outside the atlas."""
        import SimpleITK as sitk

        if self.channel >= len(subject.image):
            raise BadInput(f"channel: {self.channel} is not there; the image has {len(subject.image)}, from 0.")
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums, and so the last bits, depend on it
        fixed = _as_itk(subject.image[self.channel], subject.spacing)
        moving = _as_itk(atlas.image[self.channel], atlas.spacing)
        transform = sitk.CompositeTransform([registered_affinely(fixed, moving)])
        if self.deformable:
            transform.AddTransform(registered_by_demons(fixed, moving, transform))
        label = _as_itk(np.asarray(atlas.label), atlas.spacing)
        warped = sitk.Resample(label, fixed, transform, sitk.sitkNearestNeighbor, float(IGNORE))
        return sitk.GetArrayFromImage(warped).reshape(subject.image.shape[1:])


def registered_affinely(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """The affine map from points of `fixed` to points of `moving` of most mutual information (Mattes et al. 2003)."""
    import SimpleITK as sitk

    dims = fixed.GetDimension()
    transform = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(dims), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    for factor in SHRINKS:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(SAMPLED if factor == 1 else 1.0, seed=1)  # points are jittered
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, STEPS["affine"], gradientMagnitudeTolerance=1e-6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        method.Execute(_shrunk(fixed, factor), _shrunk(moving, factor))
    return transform


def registered_by_demons(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    """The displacements in `fixed` that symmetric-force demons (Vercauteren et al. 2009) find after `start`.

    Demons compare intensities as they are; the store has normalised them. Matching histograms made it worse: the
    backgrounds differ in size.
    """
    import SimpleITK as sitk

    aligned = sitk.Resample(moving, fixed, start, sitk.sitkLinear, float(sitk.GetArrayViewFromImage(moving).min()))
    field = None
    for factor in SHRINKS[1:]:
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(STEPS["demons"])
        demons.SetStandardDeviations(SMOOTHING)
        coarse = _shrunk(fixed, factor)
        images = coarse, _shrunk(aligned, factor)
        field = demons.Execute(*images, *([] if field is None else [sitk.Resample(field, coarse)]))
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _as_itk(array: np.ndarray, spacing: Sequence[float]) -> sitk.Image:
    """An array (*S) as an image with its spacing; a stack of one slice as a picture."""
    import SimpleITK as sitk

    sides = [side for side, n in zip(spacing, array.shape, strict=True) if n > 1]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.squeeze()))
    image.SetSpacing([float(side) for side in reversed(sides)])
    return image


def _shrunk(image: sitk.Image, factor: int) -> sitk.Image:
    """The image smoothed and shrunk by `factor`, less along axes of few voxels."""
    import SimpleITK as sitk

    factors = [max(1, min(factor, n // SMALLEST)) for n in image.GetSize()]
    if max(factors) == 1:
        return image
    sigmas = [max(0.5 * f * side if f > 1 else 0.0, 1e-3) for f, side in zip(factors, image.GetSpacing(), strict=True)]
    return sitk.Shrink(sitk.DiscreteGaussian(image, [sigma**2 for sigma in sigmas]), factors)
