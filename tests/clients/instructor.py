"""instructor: pydantic models out of tool calls, out of JSON schemas, and out of the Responses API."""

from functools import partial

import instructor
from openai import AsyncOpenAI, OpenAI

from tests.clients.checks import Check, run
from tests.clients.subject import KEY, MODEL, QUESTION, Review

MESSAGES = [{"role": "user", "content": QUESTION}]
MODES = {
    "chat, TOOLS": instructor.Mode.TOOLS,
    "chat, JSON_SCHEMA": instructor.Mode.JSON_SCHEMA,
    "Responses, RESPONSES_TOOLS": instructor.Mode.RESPONSES_TOOLS,
}


def client_of(url: str, mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=url, api_key=KEY), mode=mode)


def schema(url: str, mode: instructor.Mode) -> None:
    review = client_of(url, mode).chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Review, max_retries=0
    )
    assert isinstance(review, Review)


def schema_stream(url: str, mode: instructor.Mode) -> None:
    client = client_of(url, mode)
    *_, last = client.chat.completions.create_partial(
        model=MODEL, messages=MESSAGES, response_model=Review, max_retries=0
    )
    Review.model_validate(last.model_dump())


async def async_schema(url: str) -> None:
    client = instructor.from_openai(AsyncOpenAI(base_url=url, api_key=KEY))
    review = await client.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Review, max_retries=0)
    assert isinstance(review, Review)


def checks(mode: instructor.Mode) -> dict[str, Check]:
    return {"schema": partial(schema, mode=mode), "schema, streamed": partial(schema_stream, mode=mode)}


if __name__ == "__main__":
    apis = {name: checks(mode) for name, mode in MODES.items()}
    run("instructor", {**apis, "chat, asynchronous": {"schema": async_schema}})
