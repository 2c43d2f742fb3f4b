"""The code in docs/plug-in.md runs. The blocks for verl and rLLM are run by those engines' own tests."""

import re
from typing import Any

import pytest
import torch
from command_line import REPOSITORY


def snippet(title: str) -> str:
    """The first block of Python below a heading of docs/plug-in.md that starts with `title`."""
    text = (REPOSITORY / "docs" / "plug-in.md").read_text()
    section = next(part for part in re.split(r"^## ", text, flags=re.M)[1:] if part.startswith(title))
    found = re.search(r"```python\n(.*?)```", section, re.S)
    assert found, title
    return found[1]


def test_the_plain_pytorch_block_gives_the_numbers_of_the_equations() -> None:
    names: dict[str, Any] = {}
    exec(snippet("Plain PyTorch"), names)  # the project's own document
    logits_BTV = torch.zeros(2, 3, 2)
    logits_BTV[0, 0] = torch.tensor([20.0, 0.0])  # next to no entropy; everywhere else log 2
    advantages_BT = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    row_R, start_R, end_R = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([1, 3, 2])
    out_BT = names["with_aem"](advantages_BT, logits_BTV, row_R, start_R, end_R, torch.zeros(2, dtype=torch.long))
    h = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    alpha = torch.exp(-h) / torch.exp(-h).mean()
    expected = [[alpha[0], alpha[1], alpha[1]], [-alpha[2], -alpha[2], -1.0]]
    assert out_BT.tolist() == [pytest.approx([float(x) for x in row], abs=1e-6) for row in expected]


@pytest.mark.parametrize("title", ["Plain PyTorch", "verl: RayPPOTrainer", "rLLM with the verl backend"])
def test_every_block_is_python(title: str) -> None:
    compile(snippet(title), title, "exec")
