import pytest
from natsort import natsort_keygen, natsorted, ns


def test_numbers_inside_text():
    assert natsorted(["a10", "a9", "a1"]) == ["a1", "a9", "a10"]


def test_integers_leave_the_exponent_alone():
    assert natsorted(["a2e10", "a2e3", "a30"]) == ["a2e3", "a2e10", "a30"]


def test_floats_have_exponents():
    assert natsorted(["unit2e10", "unit2e3", "unit30"], alg=ns.FLOAT) == ["unit30", "unit2e3", "unit2e10"]


def test_floats_without_exponents():
    assert natsorted(["unit30", "unit2e10", "unit2e3"], alg=ns.FLOAT | ns.NOEXP) == ["unit2e3", "unit2e10", "unit30"]


def test_fractions_stay_fractions_without_exponents():
    assert natsorted(["a1.5", "a1.25", "a1.10"], alg=ns.FLOAT | ns.NOEXP) == ["a1.10", "a1.25", "a1.5"]


def test_signed_floats_without_exponents():
    assert natsorted(["x5e2", "x-3e9", "x40"], alg=ns.REAL | ns.NOEXP) == ["x-3e9", "x5e2", "x40"]


def test_signed_floats_with_exponents():
    assert natsorted(["x5e2", "x-3e9", "x40"], alg=ns.REAL) == ["x-3e9", "x40", "x5e2"]


def test_the_key_splits_at_the_letter():
    assert natsort_keygen(alg=ns.FLOAT | ns.NOEXP)("a1.5e4") == ("a", 1.5, "e", 4.0)


def test_the_key_with_an_exponent():
    assert natsort_keygen(alg=ns.FLOAT)("a1.5e4") == ("a", 15000.0)


def test_the_key_of_signed_integers():
    assert natsort_keygen(alg=ns.INT | ns.SIGNED)("a-5b") == ("a", -5, "b")


@pytest.mark.parametrize("alg", [ns.INT, ns.FLOAT, ns.REAL, ns.INT | ns.SIGNED])
def test_plain_integers_sort_alike(alg):
    assert natsorted(["f12", "f2", "f1"], alg=alg) == ["f1", "f2", "f12"]


def test_negative_exponents_are_text_without_exponents():
    assert natsort_keygen(alg=ns.FLOAT | ns.NOEXP)("a2e-3") == ("a", 2.0, "e-", 3.0)
