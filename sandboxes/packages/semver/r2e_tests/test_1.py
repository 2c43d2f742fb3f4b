import pytest
from semver import Version


def after(version, part, **options):
    return str(Version.parse(version).next_version(part, **options))


@pytest.mark.parametrize(
    ("version", "part", "expected"),
    [
        ("3.4.5", "major", "4.0.0"),
        ("3.4.5", "minor", "3.5.0"),
        ("3.4.5", "patch", "3.4.6"),
        ("3.4.5", "prerelease", "3.4.6-rc.1"),
    ],
)
def test_releases(version, part, expected):
    assert after(version, part) == expected


def test_a_candidate_of_a_major_version_becomes_it():
    assert after("2.0.0-rc.1", "major") == "2.0.0"


@pytest.mark.parametrize("version", ["1.0.3-rc.1", "1.0.1-alpha"])
def test_a_candidate_of_a_patch_is_no_major_version(version):
    assert after(version, "major") == "2.0.0"


def test_a_candidate_of_a_patch_with_build_is_no_major_version():
    assert after("0.0.7-rc.2+build.5", "major") == "1.0.0"


def test_a_candidate_of_a_minor_version_is_no_major_version():
    assert after("1.2.0-rc.1", "major") == "2.0.0"


def test_a_candidate_of_a_minor_version_becomes_it():
    assert after("1.2.0-rc.1", "minor") == "1.2.0"


def test_a_candidate_of_a_patch_is_no_minor_version():
    assert after("1.2.3-rc.1", "minor") == "1.3.0"


def test_a_candidate_of_a_patch_becomes_it():
    assert after("1.2.3-rc.1+build.5", "patch") == "1.2.3"


def test_the_next_candidate():
    assert after("1.2.3-rc.1", "prerelease") == "1.2.3-rc.2"


def test_another_token():
    assert after("1.2.3", "prerelease", prerelease_token="beta") == "1.2.4-beta.1"


def test_the_next_version_is_always_larger():
    for text in ("0.0.1-a", "1.0.0-a", "1.0.3-rc.1", "1.2.0-rc.1", "1.2.3"):
        version = Version.parse(text)
        assert version.next_version("major").major > version.major or version.to_tuple()[1:3] == (0, 0)


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError):
        Version.parse("1.2.3").next_version("build")
