# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Find the patient's body in a CT volume, while its voxels are still in Hounsfield units."""

from __future__ import annotations

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_medpruner.data.volume_meta import PerVolumeList, append_note
from monai_medpruner.errors import SettingsError
from monai_medpruner.transforms.body_mask import extents_of, find_body
from monai_medpruner.transforms.body_tokens import packed_mask
from monai_medpruner.transforms.each_key import EachKeyd
from monai_medpruner.transforms.hu_windows import require_one_channel
from monai_medpruner.transforms.stored_range import STORED_RANGES

__all__ = ["FindBody", "FindBodyD", "FindBodyDict", "FindBodyd", "check_crop", "plane_grid"]


class FindBody(Transform):
    """Record where the body lies in each slice of a CT, for :class:`~.crop_body.CropBody`; voxels are not changed.

    Runs after :class:`~.slice_plane.SlicePlane` and before windows and slice selection, on the whole volume: a part of
    it would not tell body from table as well. How the body is selected, and what becomes of arms beside the trunk, is
    said in :func:`~.body_mask.body_mask`. ``meta["body_extents"]`` gets, per slice, first row, last row plus one, first
    column and last column plus one; all 0 where a slice shows no body. ``meta["body_grid"]`` tells which grid of rows
    and columns they count on.

    Only CT in Hounsfield units has air at a known value. MR, other modalities, voxels that were scaled before they were
    stored and a CT without air are left as they are, which ``meta["notes"]`` says; their slices stay whole.

    Args:
        crop: "body"; "body_patches", which also records the body's shape, ``meta["body_mask"]``, by which an encoder of
            variable length leaves out the patches beside it; or None to do nothing.
        modality: "ct", "mr" or "auto": as ``meta["modality"]`` says, CT where it says nothing.
        assume_hu: take the voxels for HU whatever the metadata say.

    Raises:
        SettingsError: ``crop`` or ``modality`` is not as described, or slices were selected before.
        VolumeShapeError: more than one channel.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(self, crop: str | None = "body", modality: str = "auto", assume_hu: bool = False) -> None:
        check_crop(crop)
        if modality not in ("auto", "ct", "mr"):
            raise SettingsError(f"modality must be 'auto', 'ct' or 'mr', got {modality!r}.")
        self.crop = crop
        self.modality = modality
        self.assume_hu = assume_hu

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Record the body's extents.

        Args:
            img: ``(1, H, W, D)`` in HU, slices along the last axis.

        Returns:
            The same voxels, as a MetaTensor; ``img`` itself with ``crop=None`` or without metadata tracking.
        """
        if self.crop is None or not get_track_meta():
            return img
        require_one_channel(img)
        image: MetaTensor = convert_to_tensor(img, track_meta=True)
        if "kept_indices" in image.meta:
            raise SettingsError("slices were selected before: find the body first, then choose ranges and filters.")
        out: MetaTensor = MetaTensor(image.as_tensor()).copy_meta_from(image)
        depth, reason = image.shape[-1], self._not_in_hu(image)
        extents = found = None
        if reason is None:
            spacing = torch.linalg.vector_norm(image.affine[:3, :3], dim=0).tolist()
            found, reason = find_body(image.as_tensor()[0], spacing), "it holds no air"
        if found is not None:
            extents = extents_of(*found, image.shape[1:])
            if self.crop == "body_patches":
                out.meta["body_mask"] = packed_mask(*found)
        if extents is None:
            append_note(out.meta, f"The volume was not cropped to the body: {reason}.")
        whole = [0, image.shape[1], 0, image.shape[2]]
        out.meta["body_extents"] = PerVolumeList([whole] * depth if extents is None else extents.tolist())
        out.meta["body_grid"] = plane_grid(image)
        return out

    def _not_in_hu(self, image: MetaTensor) -> str | None:
        """Why the voxels are not CT in HU; None where they are."""
        recorded = image.meta.get("modality")
        if self.assume_hu:
            return None
        if image.meta.get("intensity") in STORED_RANGES:
            return "its voxels were scaled before they were stored"
        if self.modality == "mr" or (self.modality == "auto" and recorded not in (None, "CT")):
            return f"only CT is cropped, and its modality is {recorded if self.modality == 'auto' else 'MR'}"
        return None


def check_crop(crop: str | None) -> None:
    """Raise SettingsError unless ``crop`` is "body", "body_patches" or None."""
    if crop not in ("body", "body_patches", None):
        raise SettingsError(f"crop must be 'body', 'body_patches', or None for whole slices, got {crop!r}.")


def plane_grid(image: MetaTensor) -> PerVolumeList:
    """Rows, columns and the affine's columns of these two axes: numbers that selecting slices does not change."""
    return PerVolumeList([*map(float, image.shape[1:3]), *image.affine[:3, :2].flatten().tolist()])


class FindBodyd(EachKeyd):
    """Dictionary-based wrapper of :class:`FindBody`.

    Args:
        keys: CT volumes.
        crop: see :class:`FindBody`.
        modality: see :class:`FindBody`.
        assume_hu: see :class:`FindBody`.
        allow_missing_keys: skip absent keys.
    """

    backend = FindBody.backend

    def __init__(
        self,
        keys: KeysCollection,
        crop: str | None = "body",
        modality: str = "auto",
        assume_hu: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, FindBody(crop, modality, assume_hu), allow_missing_keys)


FindBodyD = FindBodyDict = FindBodyd
