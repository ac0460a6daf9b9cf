# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Give the encoder smaller slices: the baseline that saves tokens by resolution alone."""

from __future__ import annotations

from copy import deepcopy
from math import sqrt

import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys, TransformBackends, convert_to_tensor
from torch.nn.functional import interpolate

from monai_medpruner.data.volume_meta import PerVolumeList, collatable
from monai_medpruner.errors import SettingsError, VolumeShapeError
from monai_medpruner.transforms.crop_body import source_meta
from monai_medpruner.transforms.each_key import EachKeyd

__all__ = ["DownsampleSlices", "DownsampleSlicesD", "DownsampleSlicesDict", "DownsampleSlicesd"]

_FOLLOWING_KEYS = (
    *("uncropped_size", "pixdim"),
    *("kept_indices", "source_depth", "source_affine", "source_positions_mm", "slice_positions_mm"),
)


class DownsampleSlices(InvertibleTransform):
    """Shrink every slice to a share of its pixels, in place of pruning tokens.

    A baseline: an encoder of variable length makes as many fewer tokens of a slice, up to its rounding to whole patches
    and its own smallest size. Without a pruner the volume then has about this share of its tokens, evenly over slices
    and rows. An encoder of fixed size enlarges the slice again: there, nothing is saved and detail is lost. Other
    libraries resize inside the image processor; here it is a transform of its own, so that each encoder gets the same
    pixels. Runs last, after γ and the crop.

    Both sides are scaled by the square root of the share and rounded down, so that the share is never exceeded.
    Resampling is bilinear with antialiasing, within the range of the voxels. ``meta["uncropped_size"]`` keeps rows and
    columns of the whole slice, by which records count the tokens without pruning; the affine follows, and
    ``meta["source_affine"]`` with its companions stay those of the whole volume.

    Args:
        pixel_share: share of a slice's pixels, in ``(0, 1]``; None does nothing.

    Raises:
        SettingsError: ``pixel_share`` is not as described.
        VolumeShapeError: when called on a volume that has not three spatial axes.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, pixel_share: float | None = None) -> None:
        number = isinstance(pixel_share, int | float) and not isinstance(pixel_share, bool)
        if pixel_share is not None and not (number and 0 < pixel_share <= 1):
            raise SettingsError(f"pixel_share must lie in (0, 1], or be None, got {pixel_share!r}.")
        self.pixel_share = pixel_share

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Shrink ``img``.

        Args:
            img: ``(C, H, W, D)``, slices along the last axis, any dtype.

        Returns:
            ``(C, H', W', D)``, slices together in memory; floating point. ``img`` itself where nothing is to be done.
        """
        if img.ndim != 4:
            raise VolumeShapeError(f"expected a channel-first volume with three spatial axes, got {tuple(img.shape)}.")
        if self.pixel_share is None or self.pixel_share == 1:
            return img
        scale = sqrt(self.pixel_share)
        size = [max(1, int(length * scale + 1e-9)) for length in img.shape[1:3]]
        image = convert_to_tensor(img, track_meta=get_track_meta())
        voxels = image.as_tensor() if isinstance(image, MetaTensor) else image
        small = _resized(voxels if voxels.is_floating_point() else voxels.float(), size, antialias=True)
        if not isinstance(image, MetaTensor):
            return small
        before = {key: deepcopy(image.meta[key]) for key in _FOLLOWING_KEYS if key in image.meta}
        out: MetaTensor = MetaTensor(small).copy_meta_from(image)
        out.meta = collatable({**image.meta, **deepcopy(before)})  # MONAI updates ``pixdim`` in place
        tracked = self.track_transform_meta(
            out,
            affine=scale_affine(image.shape[1:], [*size, image.shape[3]]),
            extra_info={"affine": image.affine.clone(), "meta": before},
            orig_size=tuple(image.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        tracked.meta.setdefault("uncropped_size", PerVolumeList(image.shape[1:3]))
        if "kept_indices" not in image.meta:
            tracked.meta.update(source_meta(image))
        return out.copy_meta_from(tracked)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Give rows, columns, affine and metadata of before back; voxels are interpolated, labels by the nearest one.

        Args:
            data: MetaTensor that went through this transform, or e.g. a segmentation of its size, with any number of
                channels.
        """
        if self.pixel_share is None or self.pixel_share == 1:
            return data
        transform = self.pop_transform(data)
        info = transform[TraceKeys.EXTRA_INFO]
        voxels = data.as_tensor() if isinstance(data, MetaTensor) else data
        size = [int(length) for length in transform[TraceKeys.ORIG_SIZE][:2]]
        if voxels.is_floating_point():
            restored = _resized(voxels, size)
        else:
            restored = _resized(voxels.double(), size, mode="nearest-exact").to(voxels.dtype)
        out: MetaTensor = MetaTensor(restored).copy_meta_from(data)
        for key in _FOLLOWING_KEYS:
            out.meta.pop(key, None)
        out.meta.update(deepcopy(info["meta"]))
        out.affine = info["affine"]
        return out


def _resized(voxels: torch.Tensor, size: list[int], mode: str = "bilinear", antialias: bool = False) -> torch.Tensor:
    """Resize each slice of ``(C, H, W, D)``; slices of the result lie together in memory."""
    slices = voxels.movedim(-1, 0)
    return interpolate(slices, size, mode=mode, antialias=antialias).movedim(0, -1)


class DownsampleSlicesd(EachKeyd, InvertibleTransform):
    """Dictionary-based wrapper of :class:`DownsampleSlices`.

    Args:
        keys: volumes.
        pixel_share: see :class:`DownsampleSlices`.
        allow_missing_keys: skip absent keys.
    """

    array_form: DownsampleSlices
    backend = DownsampleSlices.backend

    def __init__(
        self, keys: KeysCollection, pixel_share: float | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, DownsampleSlices(pixel_share), allow_missing_keys)

    def inverse(self, data: dict) -> dict:
        """Give every key its rows and columns back."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.array_form.inverse(d[key])
        return d


DownsampleSlicesD = DownsampleSlicesDict = DownsampleSlicesd
