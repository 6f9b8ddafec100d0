"""A volume and a map to be moved through, as a page that works offline: nilearn's viewer."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fusionbench.errors import one_line
from fusionbench.explaining.sights import Volume
from fusionbench.explaining.tiles import COVER, ON_IMAGE

POLICY = (
    "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
"""nilearn's script and style are inside the page, without which there is no viewer; nothing is loaded or sent."""
FAINTEST = 0.05
"""Values of a map below this share of its largest are not drawn."""


@dataclass(frozen=True)
class View:
    """What a viewer shows."""

    image: Volume
    map: Volume
    """Of the size of the image."""
    spacing: tuple[float, float, float]
    """Millimetres per voxel along (D, H, W)."""
    middle: tuple[float, float, float]
    """The voxel (D, H, W) that is looked at first."""


def viewer_page(view: View, heading: str, notes: str) -> str:
    """The page of an image and a map, with a heading and what must be said with it.

    Coordinates are mm to the right, the front and the top, from the middle of what the models see.
    """
    from nilearn.plotting import view_img

    affine = centred_affine(view.image.shape, view.spacing)
    scaled = view.map / max(float(view.map.max()), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of maps that are nowhere faint, or 0 and 1 only: no news here
        page: Any = view_img(
            _nifti(scaled, affine),
            bg_img=_nifti(view.image, affine),
            cut_coords=(affine @ [*view.middle[::-1], 1])[:3].tolist(),
            cmap=ON_IMAGE,
            symmetric_cmap=False,
            vmin=0,
            vmax=1,
            threshold=FAINTEST,
            opacity=COVER,
            black_bg=True,
            width_view=900,
        )  # without a title: nilearn 0.14 writes it into its page and its script as it is
    return _framed(page.get_standalone(), one_line(heading), one_line(notes))


def centred_affine(size: tuple[int, ...], spacing: tuple[float, float, float]) -> Any:
    """The affine (4, 4) from voxels (x, y, z) to mm in RAS, 0 in the middle, for (D, H, W) = (Z, Y, X)."""
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = [-mm * (n - 1) / 2 for mm, n in zip(spacing[::-1], size[::-1], strict=True)]
    return affine


def _nifti(volume: Volume, affine: Any) -> Any:
    from nibabel import nifti1

    image: Any = nifti1.Nifti1Image  # typed in part, as is the rest of nibabel
    return image(volume.transpose(2, 1, 0), affine)  # (D, H, W) -> (X, Y, Z)


def _framed(page: str, heading: str, notes: str) -> str:
    """nilearn's page with a policy, our heading, and without the icon that it would load."""
    bare = re.sub(r"<link[^>]*>|<title>.*?</title>", "", page, flags=re.DOTALL)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    style = "<style>body{background:#000;color:#ddd;font:15px/1.5 system-ui,sans-serif;margin:1.5rem}</style>"
    head = f'<head><meta charset="utf-8">{policy}<title>{escape(heading)}</title>{style}'
    words = f"<body><h1>{escape(heading)}</h1><p>{escape(notes)}</p>"
    return bare.replace("<head>", head, 1).replace("<body>", words, 1)
