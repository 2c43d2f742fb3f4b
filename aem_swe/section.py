"""What every section of a recipe is made of: its base class and its kinds of numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# strict: YAML has types of its own, so `true` is no number
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
