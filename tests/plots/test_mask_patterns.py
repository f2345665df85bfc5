"""Mask panels show what masks show."""

import numpy as np
import pytest
from matplotlib import colors, image, patches

from mtm_jax import masks
from mtm_jax.errors import UserError
from mtm_jax.plots import mask_patterns, style
from mtm_jax.types import MODALITIES


def test_mask_panels_hold_the_visibility_of_masks(drawn, tmp_path):
    mask_patterns.draw(tmp_path / "masks.png", window=5, slot=2)
    axes = drawn[0].axes
    assert len(axes) == 2 + len(masks.PROMPTS)
    shown = dict(zip(mask_patterns._PROMPT_TITLES, axes[2:], strict=True))
    assert set(shown) == set(masks.PROMPTS)
    for name, axis in shown.items():
        drawn_visible = np.array([is_visible(p) for p in axis.patches[:20]]).reshape(4, 5)
        expected = masks.prompt(name, 2, 5)
        np.testing.assert_array_equal(drawn_visible, [expected[m] for m in MODALITIES])


def is_visible(token: patches.Rectangle) -> bool:
    return token.get_facecolor() != colors.to_rgba(style.LIGHT_GREY)


def test_mask_figure_is_a_png(tmp_path):
    path = mask_patterns.draw(tmp_path / "docs" / "masks.png")
    assert image.imread(path).shape[1] > 1000


def test_slot_outside_the_window_is_refused(tmp_path):
    with pytest.raises(UserError, match="slot 8 is not in a window of 8 steps"):
        mask_patterns.draw(tmp_path / "masks.png", window=8, slot=8)
