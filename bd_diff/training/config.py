"""Configurations: YAML and command-line overrides as frozen dataclasses; an unknown name is an error."""

import argparse
import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings of a training run, the same for every system."""

    folder: str  # checkpoints, logs and the finished model go here
    steps: int
    batch_size: int  # per process
    seed: int = 0
    resume: bool = False  # continue from the newest checkpoint in `folder`
    dry_run: bool = False  # print sizes and the effective configuration, then stop
    save_minutes: float = 5.0
    validate_every: int = 1000  # steps; 0 never
    log_every: int = 50  # steps
    ema_decay: float = 0.999  # 0 keeps no average
    max_grad_norm: float = 1.0
    warmup_steps: int = 100
    mixed_precision: str = "no"  # no, fp16, bf16
    gradient_accumulation: int = 1
    trackers: tuple[str, ...] = ("tensorboard",)
    workers: int = 0  # processes that prepare batches
    cpu: bool = False  # stay on the CPU even where there is a GPU


def load_config(cls: type[Config], arguments: list[str]) -> Config:
    """The dataclass `cls` from the YAML file after `--config` and the overrides after it.

    `section.name=value` (value in YAML) overrides one value; `--resume` and `--dry-run` are short for `run.resume=true`
    and `run.dry_run=true`. Raises ValueError naming the file and the key.
    """
    parser = argparse.ArgumentParser(description=cls.__doc__)
    parser.add_argument("--config", required=True, help="a YAML file from configs/")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print sizes and configuration, then stop")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="values that replace the file's")
    given = parser.parse_intermixed_args(arguments)  # --resume may stand between overrides
    values = read_yaml(given.config)
    flags = [f"run.{name}=true" for name in ("resume", "dry_run") if getattr(given, name)]
    for override in given.overrides + flags:
        place(values, override)
    return build(cls, values, where=str(given.config))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping. Raises ValueError naming the file when it is missing, broken or something else."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no configuration file {path}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no mapping of names to values")
    return values


def place(values: dict[str, Any], override: str) -> None:
    """Put `section.name=value` into nested `values`."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is not of the form section.name=value")
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{key}: {section} is a value, not a section")
    values[name] = yaml.safe_load(text)


def build(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """Fill the dataclass `cls` from plain values; every name and every type is checked."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a section with {', '.join(fields)}, got {values!r}")
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(fields)}"
            raise ValueError(f"{where}: there is no {name}; {hint}")
    hints = typing.get_type_hints(cls)
    arguments = {name: convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in arguments]:
        raise ValueError(f"{where}: {', '.join(missing)} must be given")
    return cls(**arguments)


def convert(kind: Any, value: Any, where: str) -> Any:
    """One YAML value as the annotated type, or a ValueError that says what was expected."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in parts:
            return None
        if isinstance(value, str) and str in parts:
            return value
        return convert(next(part for part in parts if part is not type(None)), value, where)
    if kind is str and value is False:
        return "no"  # which YAML reads so
    if origin is tuple and parts[0] is str and isinstance(value, str):
        value = [value]  # one needs no brackets
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(convert(part, item, where) for part, item in zip(inner, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {name: convert(parts[1], item, f"{where}.{name}") for name, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = origin or kind
    if kind is Any or (isinstance(value, plain) and not (plain is int and isinstance(value, bool))):
        return value
    hint = "; write 1.0e-4, YAML reads 1e-4 as text" if kind is float and isinstance(value, str) else ""
    raise ValueError(f"{where} is {value!r}; expected {getattr(plain, '__name__', plain)}{hint}")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values, as in a YAML file."""
    plain = dataclasses.asdict(config)

    def lists(value):
        if isinstance(value, dict):
            return {name: lists(item) for name, item in value.items()}
        return [lists(item) for item in value] if isinstance(value, (list, tuple)) else value

    return lists(plain)
