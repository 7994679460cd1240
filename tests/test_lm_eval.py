"""EleutherAI's lm-eval against the server gives the figures that its own `hf` backend gives for the checkpoint.

lm-eval runs offline, as its users run it and with nothing tuned, on tasks made from the demo model's held-out stories.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compiler.build import build
from engines import cpu_levels
from tests.running_server import ROOT, ServerProcess, free_port, wait_until

pytestmark = pytest.mark.slow

ENVIRONMENT = ROOT / ".venv" / "lm-eval"
DEMO = ROOT / "models" / "demo"
BEST = next(level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags())
STORIES = 10
MOST = 1e-3
"""How far apart two log-likelihoods of one text may be in float32, natural units."""
ACCURACIES = {"endings": "acc,none", "sentences": "acc,none"}


@dataclass(frozen=True)
class Figures:
    """What one run of lm-eval found."""

    loglikelihoods: dict[str, list[float]]
    """By task, one per text that was scored."""
    texts: list[str]
    accuracies: dict[str, float]
    word_perplexity: float


def stories() -> tuple[list[str], list[str]]:
    """Held-out stories that end in a full stop, twice STORIES.

    No two tasks may share one: where a scored text is the beginning of another, lm-eval 0.4.13's `hf` backend, which
    keeps logits by text, reports the log-probability of another token.
    """
    parts = (part.strip() for part in (DEMO / "heldout.txt").read_text().split("<|endoftext|>"))
    told = [part for part in parts if part.endswith(".") and "<|im_start|>" not in part]
    assert len(told) >= 2 * STORIES
    return told[:STORIES], told[STORIES : 2 * STORIES]


def write_tasks(directory: Path) -> list[str]:
    """Four tasks, each a file for lm-eval (YAML, of which JSON is a part) and one of data. Returns their names."""
    told, others = stories()
    begun, ends = zip(*(story[:-1].rsplit(". ", 1) for story in told), strict=True)
    choose = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    }
    documents: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
        "sentences": (
            choose,
            [
                {"context": f"{begun[i]}.", "choices": [f"{ends[(i + k) % len(told)]}." for k in range(4)], "gold": 0}
                for i in range(len(told))
            ],
        ),
        "endings": (
            {**choose, "target_delimiter": ""},
            [{"context": story[:-1], "choices": [".", "!", "?", ","], "gold": 0} for story in others],
        ),
        "rolling": (
            {
                "output_type": "loglikelihood_rolling",
                "doc_to_text": "",
                "doc_to_target": "{{story}}",
                "metric_list": [{"metric": "word_perplexity"}],
            },
            [{"story": story} for story in told],
        ),
        "greedy": (
            {
                "output_type": "generate_until",
                "doc_to_text": "{{context}}",
                "doc_to_target": "{{story}}",
                "generation_kwargs": {"until": ["\n\n", "Q:", "###", "The end"], "max_gen_toks": 48},
                "metric_list": [{"metric": "exact_match"}],
            },
            [{"context": story.split(". ")[0] + ".", "story": story} for story in told],
        ),
    }
    for name, (task, rows) in documents.items():
        data = directory / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (directory / f"{name}.yaml").write_text(json.dumps({"task": name, **source, **task}))
    return list(documents)


def evaluate(directory: Path, tasks: list[str], model: str, arguments: str, name: str) -> Figures:
    """Run lm-eval on the tasks in `directory`."""
    out = directory / name
    command = [
        str(ENVIRONMENT / "bin" / "python"),
        "-m",
        "lm_eval",
        "--model",
        model,
        "--model_args",
        arguments,
        "--tasks",
        ",".join(tasks),
    ]
    files = ["--device", "cpu", "--include_path", str(directory), "--output_path", str(out), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(directory / "cache")}
    run = subprocess.run(
        [*command, *files], env={**os.environ, **offline}, cwd=directory, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
    samples = {task: [sample for line in lines(out, task) for sample in line["resps"]] for task in tasks}
    return Figures(
        loglikelihoods={
            "sentences": [float(response[0][0]) for response in samples["sentences"]],
            "endings": [float(response[0][0]) for response in samples["endings"]],
            "rolling": [float(response[0]) for response in samples["rolling"]],
        },
        texts=[response[0] for response in samples["greedy"]],
        accuracies={task: results[task][metric] for task, metric in ACCURACIES.items()},
        word_perplexity=results["rolling"]["word_perplexity,none"],
    )


def lines(out: Path, task: str) -> list[Any]:
    rows = [json.loads(row) for row in next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()]
    return sorted(rows, key=lambda row: row["doc_id"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ENVIRONMENT / "ready").exists():
        pytest.skip("lm-eval is not installed: make test-slow does it")
    return tmp_path_factory.mktemp("lm-eval")


@pytest.fixture(scope="module")
def tasks(directory: Path) -> list[str]:
    return write_tasks(directory)


@pytest.fixture(scope="module")
def hf(directory: Path, tasks: list[str]) -> Figures:
    """The reference: lm-eval's own way with a checkpoint."""
    return evaluate(directory, tasks, "hf", f"pretrained={DEMO}", "hf")


@pytest.fixture(scope="module")
def served(directory: Path, tasks: list[str]) -> Callable[[Path], Figures]:
    """lm-eval's figures through a server of the checkpoint or artifact in a directory."""

    def figures(model: Path) -> Figures:
        port = free_port()
        env = {"MODEL_DIR": str(model), "MODEL_NAME": "served", "PORT": str(port)}
        with ServerProcess(["-m", "server"], env, port, directory / f"{model.name}.log") as server:
            wait_until(server.listens, "the server listens")
            arguments = f"model=served,base_url={server.url}/v1/completions,tokenizer={DEMO}"
            return evaluate(directory, tasks, "local-completions", arguments, f"served-{model.name}")

    return figures


def furthest(ours: Figures, theirs: Figures) -> dict[str, float]:
    """By task, how far the log-likelihoods of one text lie apart at most."""
    pairs = {
        task: zip(ours.loglikelihoods[task], theirs.loglikelihoods[task], strict=True) for task in ours.loglikelihoods
    }
    return {task: max(abs(one - other) for one, other in both) for task, both in pairs.items()}


def whole_characters(texts: list[str]) -> list[str]:
    """transformers decodes the half of a character at a cut to U+FFFD, the server leaves it out."""
    return [text.rstrip("\ufffd") for text in texts]


@pytest.mark.parametrize("engine", ["transformers", "compiled"])
def test_float32_scores_as_lm_eval_s_own_backend_does(
    engine: str, hf: Figures, served: Callable[[Path], Figures], directory: Path
) -> None:
    model = DEMO
    if engine == "compiled":
        model = directory / "none"
        build(DEMO, model, "none", levels=[BEST])
    ours = served(model)
    assert max(furthest(ours, hf).values()) <= MOST
    assert ours.accuracies == hf.accuracies
    assert ours.accuracies["endings"] == 1.0  # a full stop, after which the demo model ends the text
    assert ours.word_perplexity == pytest.approx(hf.word_perplexity, rel=1e-4)
    assert ours.texts == whole_characters(hf.texts)


def test_int8_scores_nearly_so(hf: Figures, served: Callable[[Path], Figures], directory: Path) -> None:
    build(DEMO, directory / "int8", "int8", levels=[BEST])
    ours = served(directory / "int8")
    same = sum(one == other for one, other in zip(ours.texts, whole_characters(hf.texts), strict=True))
    print(f"furthest log-likelihoods: {furthest(ours, hf)}")
    print(f"accuracies: {ours.accuracies}, hf {hf.accuracies}")
    print(f"word perplexity: {ours.word_perplexity}, hf {hf.word_perplexity}; {same} of {len(hf.texts)} texts the same")
    assert ours.word_perplexity == pytest.approx(hf.word_perplexity, rel=0.01)
    assert ours.accuracies == pytest.approx(hf.accuracies, abs=2 / STORIES)
