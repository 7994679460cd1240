"""Prompts baked into a copy of an artifact, as the compiler's last step does it: no compilation of its own."""

import shutil
from pathlib import Path

from compiler import prompt_files, prompt_pages
from engines import artifact, cpu_levels

LEVEL = cpu_levels.choose_level(cpu_levels.levels_here(), cpu_levels.cpu_flags())
"""The best one that runs here: the one that reads the prompts."""


def bake(compiled: Path, target: Path, *paths: Path, chat_template: str | None = None) -> Path:
    """A copy of `compiled` in `target` that has read the prompts in `paths`."""
    shutil.copytree(compiled, target, dirs_exist_ok=True)
    if chat_template is not None:
        (target / "chat_template.jinja").write_text(chat_template)
    prompts = prompt_files.read(paths, target, artifact.read(target).context_length)
    prompt_pages.store(target, prompts)
    return target
