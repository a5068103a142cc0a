from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from serving.domain.byte_sizes import Bytes

SIZES: TypeAdapter[int] = TypeAdapter(Bytes)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("1Gi", 1 << 30),
        ("512Mi", 512 << 20),
        ("64ki", 64 << 10),
        ("1.5Gi", 3 << 29),
        ("2GB", 2_000_000_000),
        ("2 GiB", 2 << 30),
        (" 1Gi ", 1 << 30),
        ("1G", 1_000_000_000),
    ],
)
def test_sizes_are_taken_as_people_and_kubernetes_write_them(text: str, size: int) -> None:
    assert SIZES.validate_python(text) == size


@given(number=st.integers(0, 1023), unit=st.sampled_from("KMGTPE"))
def test_the_units_of_kubernetes_are_powers_of_1024(number: int, unit: str) -> None:
    assert SIZES.validate_python(f"{number}{unit}i") == number << 10 * ("KMGTPE".index(unit) + 1)


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "1GiBs", "-1Gi", "1.2.3Gi", "one"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        SIZES.validate_python(text)
