"""What --confirm accepts: the registered setting, claims, test and seeds, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types

from aem_swe.engines.local.dynamics.setting import Setting
from aem_swe.errors import ConfigError
from aem_swe.eval.preregistered import (
    preregistered_file,
    read_preregistration,
    require_exploratory,
    require_registered,
)


def committed() -> dict[str, Any]:  # YAML values
    found: dict[str, Any] = yaml.safe_load(preregistered_file().read_text())
    return found


def written(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(committed() | {"status": "registered"} | changes))
    return path


def test_the_committed_file_asks_for_the_analysis_that_this_version_computes(tmp_path: Path) -> None:
    found = read_preregistration(written(tmp_path / "p.yaml"))
    setting = Setting.from_json(dict(found.setting))
    assert setting.as_json() == found.setting
    assert setting.probe_recipe("builtin/demo-policy", found.seeds[0]).engine == "local"
    require_registered(found, setting.as_json(), found.seeds)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "draft"}, "status is 'draft'"),
        ({"alpha": 0.1}, "alpha is 0.1"),
        ({"claims": {"masks": ["early", 1]}}, "claims is"),
        ({"test": "another"}, "test is 'another'"),
        ({"seeds": [99, 100, 101, 102, 103]}, "seed 99 is below 100"),
        ({"seeds": [100, 101, 102, 103, 103]}, "4 different seeds are too few"),
        ({"extra": 1}, "key 'extra'"),
    ],
)
def test_another_analysis_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_preregistration(written(tmp_path / "p.yaml", **changes))


def test_another_setting_or_other_seeds_are_refused(tmp_path: Path) -> None:
    found = read_preregistration(written(tmp_path / "p.yaml"))
    setting = dict(found.setting)
    with pytest.raises(ConfigError, match="batches is 3, registered is 32"):
        require_registered(found, setting | {"batches": 3}, found.seeds)
    with pytest.raises(ConfigError, match="seed 7 is one of exploration"):
        require_registered(found, setting, [7, *found.seeds[1:]])
    with pytest.raises(ConfigError, match="registered are"):
        require_registered(found, setting, found.seeds[1:])


def test_exploration_stays_away_from_the_seeds_of_the_confirmation() -> None:
    require_exploratory([0, 99])
    with pytest.raises(ConfigError, match="seed 100 is kept"):
        require_exploratory([1, 100])


def test_a_setting_survives_its_file_and_refuses_other_keys() -> None:
    setting = Setting(overrides=("data.pool=4",), batches=3)
    assert Setting.from_json(setting.as_json()) == setting
    with pytest.raises(ConfigError, match="'depth' is missing or unknown"):
        Setting.from_json(setting.as_json() | {"depth": 1})
