import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.backbones.cls_attention import cls_attention_rows


@given(seed=st.integers(0, 1000), num_prefix=st.integers(1, 5), heads=st.integers(1, 4), patches=st.integers(1, 30))
def test_rows_equal_the_full_attention_matrix(seed, num_prefix, heads, patches):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 2, heads, num_prefix + patches, 8, generator=generator, dtype=torch.float64)
    full = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1)
    rows = cls_attention_rows(q, k, scale=8**-0.5, num_prefix=num_prefix)
    torch.testing.assert_close(rows, full[:, :, 0, num_prefix:], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_are_float32_for_short_dtypes_and_under_autocast(dtype):
    q, k = torch.randn(2, 1, 2, 9, 8).to(dtype)
    exact = cls_attention_rows(q.float(), k.float(), scale=0.35, num_prefix=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = cls_attention_rows(q, k, scale=0.35, num_prefix=1)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, exact)


def test_rows_carry_no_gradient():
    q = torch.randn(1, 2, 9, 8, requires_grad=True)
    assert not cls_attention_rows(q, q, scale=1.0, num_prefix=1).requires_grad
