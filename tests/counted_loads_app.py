"""The production application, which also writes the process id into the file LOADS for each load of a model."""

import os

import model_loader
from api.model import Model
from app import app
from settings import Settings

__all__ = ["app"]

load = model_loader.load_model


def counted(settings: Settings) -> Model:
    """A load, written down."""
    with open(os.environ["LOADS"], "a", encoding="utf-8") as loads:
        loads.write(f"{os.getpid()}\n")
    return load(settings)


model_loader.load_model = counted
