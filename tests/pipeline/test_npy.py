"""`.npy` members against numpy's own reader, and what must be refused."""

import io

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.format import FormatError, decode_npy, encode_npy


def saved(array: npt.NDArray[np.generic], version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(240, dtype=np.float16).reshape(80, 3),
        np.asfortranarray(np.arange(12, dtype=np.int32).reshape(3, 4)),
        np.zeros((0, 68, 2), np.float32),
        np.array(7, ">i8"),
    ],
)
def test_as_numpy_reads_it(array: npt.NDArray[np.generic]) -> None:
    data = saved(array)
    found, expected = decode_npy(data), np.load(io.BytesIO(data))
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.flags.f_contiguous == expected.flags.f_contiguous
    np.testing.assert_array_equal(found, expected)


def test_arrays_with_one_header_are_not_one_array() -> None:
    first, second = (encode_npy(np.full((2, 3), value, np.float16)) for value in (1, 2))
    decode_npy(first)[:] = 9  # writable, and its own
    assert decode_npy(first).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert decode_npy(second).tolist() == [[2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("change", [slice(0, -1), slice(0, 40), slice(0, 8), slice(1, None)])
def test_what_is_cut_is_refused(change: slice) -> None:
    with pytest.raises(ValueError, match=r"bytes|magic|EOF"):
        decode_npy(encode_npy(np.zeros((80, 30), np.float16))[change])


def test_a_second_look_refuses_as_the_first_one_did() -> None:
    data = encode_npy(np.zeros((80, 30), np.float16))
    decode_npy(data)
    with pytest.raises(FormatError, match=r"should have 4928 bytes, not 4929"):
        decode_npy(data + b"x")


def test_another_version_is_refused() -> None:
    with pytest.raises(FormatError, match=r"npy version \(2, 0\); only 1.0"):
        decode_npy(saved(np.zeros(3), (2, 0)))


def test_objects_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="an npy of"):
        decode_npy(buffer.getvalue())
