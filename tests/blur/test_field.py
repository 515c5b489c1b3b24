"""Kernels and how much each of them counts where."""

import pytest
import torch

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta, gaussian, line

TWO = torch.cat([delta(1), gaussian(torch.tensor([2.0]))])


def test_shares_sum_to_one_whatever_part_is_seen():
    field = BlurField(TWO.repeat(3, 1, 1), torch.eye(6).view(6, 2, 3))
    whole = field.shares_in(50, 70, slice(None), slice(None))
    assert torch.allclose(whole.sum(0), torch.ones(50, 70))
    assert torch.equal(field.shares_in(50, 70, slice(10, 30), slice(60, 99)), whole[:, 10:30, 60:70])


def test_a_kernel_counts_alone_at_its_place_and_beyond():
    field = BlurField(TWO, torch.eye(2).view(2, 1, 2))
    shares = field.shares_in(8, 8, slice(None), slice(None))
    assert shares[0, :, :2].eq(1).all() and shares[1, :, 6:].eq(1).all()
    assert shares[0, 0, 2:6].diff().lt(0).all()


@pytest.mark.parametrize(("columns", "middle"), [(2, 0.5 * TWO.sum(0)), (3, None)])
def test_the_kernel_in_the_middle(columns, middle):
    kernels = TWO if columns == 2 else torch.cat([TWO, line(torch.tensor([9.0]), torch.tensor([0.0]))])
    field = BlurField(kernels, torch.eye(columns).view(columns, 1, columns))
    assert torch.allclose(field.middle, kernels[1] if middle is None else middle, atol=1e-6)
