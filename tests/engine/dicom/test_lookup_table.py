import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from engine.dicom.lookup_table import read_lut


def item(entries: int, first: int, bits: int, values: bytes | list[int]) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [entries, first, bits]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = values
    table["LUTData"].VR = "OW" if isinstance(values, bytes) else "US"
    return table


@given(st.integers(2, 300), st.integers(8, 16), st.booleans(), st.integers(0, 2**32 - 1))
def test_entries_come_back_as_they_were_written(entries: int, bits: int, little: bool, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**bits, entries).astype("<u2" if little else ">u2")
    table = read_lut(item(entries, 5, bits, values.tobytes()), signed=False, little=little)
    assert (table.first, table.bits) == (5, bits)
    np.testing.assert_array_equal(table.values, values)


def test_entries_given_as_numbers_are_the_same_as_entries_given_as_bytes() -> None:
    values = list(range(0, 4096, 16))
    table = read_lut(item(256, 0, 12, values), signed=False, little=True)
    np.testing.assert_array_equal(table.values, values)


@pytest.mark.parametrize(("first", "signed", "meant"), [(65526, True, -10), (65526, False, 65526), (10, True, 10)])
def test_the_first_value_has_the_sign_of_the_pixels(first: int, signed: bool, meant: int) -> None:
    assert read_lut(item(2, first, 8, b"\1\0\2\0"), signed=signed, little=True).first == meant


@pytest.mark.parametrize("table", [(3, 0, 12, b"\1\0\2\0"), (2, 0, 7, b"\1\0\2\0"), (2, 0, 17, b"\1\0\2\0"), (2, 0, 8, b"\1\1\2\0")])
def test_a_table_that_contradicts_its_descriptor_is_none(table: tuple[int, int, int, bytes]) -> None:
    with pytest.raises(ValueError):
        read_lut(item(*table), signed=False, little=True)
