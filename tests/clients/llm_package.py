"""simonw's `llm`, as a package and on the command line, with the server in its `extra-openai-models.yaml`."""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.clients.checks import Check, run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, MODEL, QUESTION, WEATHER, Review, same

COMMAND = Path(sys.executable).with_name("llm")


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return WEATHER


def name_of(url: str, responses: bool) -> str:
    return f"responses {url}" if responses else url


def configure(home: str, urls: list[str]) -> None:
    """Write a model for each base URL and API where `llm` looks for them."""
    models = [
        {
            "model_id": name_of(url, responses),
            "model_name": MODEL,
            "api_base": url,
            "supports_tools": True,
            "supports_schema": True,
            "responses": responses,
        }
        for url in urls
        for responses in (False, True)
    ]
    (Path(home) / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    os.environ["LLM_USER_PATH"] = home


def model_of(url: str, responses: bool) -> Any:
    import llm  # once it finds its models

    return llm.get_model(name_of(url, responses))


def answer(url: str, responses: bool) -> None:
    response = model_of(url, responses).prompt(QUESTION, stream=False)
    same(response.text(), ANSWER)
    assert response.usage().output > 1


def stream(url: str, responses: bool) -> None:
    same("".join(model_of(url, responses).prompt(QUESTION)), ANSWER)


def command_stream(url: str) -> None:
    done = subprocess.run(
        [str(COMMAND), "--model", url, QUESTION], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    same(done.stdout.strip(), ANSWER)


def schema(url: str, responses: bool) -> None:
    Review.model_validate_json(model_of(url, responses).prompt(QUESTION, schema=Review, stream=False).text())


def schema_stream(url: str, responses: bool) -> None:
    Review.model_validate_json("".join(model_of(url, responses).prompt(QUESTION, schema=Review)))


def tools(url: str, responses: bool) -> None:
    same(model_of(url, responses).chain(QUESTION, tools=[get_weather], stream=False).text(), ANSWER_AFTER_TOOL)


def tools_stream(url: str, responses: bool) -> None:
    same("".join(model_of(url, responses).chain(QUESTION, tools=[get_weather])), ANSWER_AFTER_TOOL)


def checks(responses: bool) -> dict[str, Check]:
    return {
        "answer": partial(answer, responses=responses),
        "answer, streamed": partial(stream, responses=responses),
        "schema": partial(schema, responses=responses),
        "schema, streamed": partial(schema_stream, responses=responses),
        "tools": partial(tools, responses=responses),
        "tools, streamed": partial(tools_stream, responses=responses),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        configure(home, [argument.split("=", 1)[1] for argument in sys.argv[1:]])
        apis = {"chat": checks(responses=False), "Responses": checks(responses=True)}
        run("llm", {**apis, "chat, command line": {"answer, streamed": command_stream}})
