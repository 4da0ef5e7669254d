"""The replayable recipe: which passes, in which order, on how many threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taut.errors import ArtefactError, VersionError

RECIPE_VERSION = 1
Preparation = Literal["calibrated", "fine-tuned"]
_LARGEST = 2**20


class Step(BaseModel):
    """One pass with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(alias="pass")
    options: dict[str, bool | int | float | str | list[str]] = Field(default_factory=dict)


class Recipe(BaseModel):
    """What turns the original model into the optimised one.

    Attributes:
        steps: the passes in order of application.
        threads: intra-operator threads to run with.
        prepared: what was done to the weights with data before the quantising step; where it is anything, the steps
            alone do not make the optimised model, and only its bundle has the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = RECIPE_VERSION
    steps: tuple[Step, ...] = ()
    threads: int = Field(default=1, ge=1, le=4096)
    prepared: tuple[Preparation, ...] = ()

    @classmethod
    def make(
        cls, passes: list[tuple[str, dict[str, Any]]], threads: int, prepared: tuple[Preparation, ...] = ()
    ) -> Self:
        """From (pass name, options) pairs."""
        return cls(
            steps=tuple(Step.model_validate({"pass": name, "options": options}) for name, options in passes),
            threads=threads,
            prepared=prepared,
        )

    @property
    def passes(self) -> list[tuple[str, dict[str, Any]]]:
        """As `taut.transform.apply_recipe` takes it."""
        return [(step.name, dict(step.options)) for step in self.steps]

    def to_yaml(self) -> str:
        """The text of `recipe.yaml`."""
        unused = None if self.prepared else {"prepared"}
        return yaml.safe_dump(self.model_dump(by_alias=True, mode="json", exclude=unused), sort_keys=False)


def parse_recipe(text: str, source: str) -> Recipe:
    """Read the text of a `recipe.yaml`.

    Raises:
        VersionError: written by a newer version.
        ArtefactError: not a recipe; names the field.
    """
    if len(text) > _LARGEST:
        raise ArtefactError(f"{source}: {len(text)} characters", expected=f"at most {_LARGEST}")
    if "&" in text and "*" in text:  # aliases can expand without bound
        raise ArtefactError(f"{source}: uses YAML anchors", expected="plain YAML")
    try:
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise ArtefactError(f"{source}: holds a {type(content).__name__}", expected="steps: and threads:")
        version = content.get("version", RECIPE_VERSION)
        if isinstance(version, int) and version > RECIPE_VERSION:
            raise VersionError(
                f"{source}: recipe version {version}", expected=f"{RECIPE_VERSION} or older", fix="upgrade taut"
            )
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtefactError(
            f"{source}: {place}: {first['msg']}", expected="steps: [{pass: NAME, options: {}}], threads: N"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise ArtefactError(f"{source}: not YAML ({str(error).splitlines()[0]})") from error


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a file or from a bundle's folder.

    Raises:
        ArtefactError: missing, or not a recipe.
    """
    file = path / "recipe.yaml" if path.is_dir() else path
    try:
        return parse_recipe(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ArtefactError(
            f"{file}: cannot be read ({error.strerror})", fix="give a recipe.yaml or a bundle's folder"
        ) from error
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{file}: not UTF-8 text", expected="a recipe.yaml") from error
