"""DSPy: its language model, and predictions and agents whose answers follow a schema.

DSPy asks for a schema only from providers that it knows to follow one, so that the server is declared as such.
"""

import dspy
from dspy.lm15 import (
    AccessPolicy,
    EndpointSupport,
    ModelSupport,
    OpenAIChatCompat,
    ProviderDefinition,
    register_provider,
)

from tests.clients.checks import run
from tests.clients.subject import ANSWER, KEY, MODEL, QUESTION, WEATHER, get_weather, same


class Reviewed(dspy.Signature):  # type: ignore[misc]
    """Review the story."""

    story: str = dspy.InputField()
    stars: int = dspy.OutputField()
    recommended: bool = dspy.OutputField()


def lm_of(url: str, provider: str = "openai", **more: str) -> dspy.LM:
    return dspy.LM(f"{provider}/{MODEL}", api_base=url, api_key=KEY, cache=False, **more)


def declare() -> None:
    """The address is that of `make serve`; a language model's own counts first."""
    supports = EndpointSupport(complete=True, stream=True)
    access = AccessPolicy(provider="causal-lm", supports=supports, base_url="http://127.0.0.1:8000/v1")
    definition = ProviderDefinition.chat(access, compat=OpenAIChatCompat(json_schema="send"))
    register_provider(definition, supports=ModelSupport(function_calling=True, response_schema=True))


def answer(url: str) -> None:
    same(lm_of(url)(QUESTION), [ANSWER])


def schema(url: str) -> None:
    with dspy.context(lm=lm_of(url, "causal-lm")):
        review = dspy.Predict(Reviewed)(story=ANSWER)
    assert isinstance(review.stars, int)
    assert isinstance(review.recommended, bool)


async def schema_stream(url: str) -> None:
    with dspy.context(lm=lm_of(url, "causal-lm"), adapter=dspy.JSONAdapter()):
        program = dspy.streamify(dspy.Predict(Reviewed))
        *_, review = [part async for part in program(story=ANSWER)]
    assert isinstance(review.stars, int)


def tools(url: str) -> None:
    """Two calls, then one that submits the answer."""
    with dspy.context(lm=lm_of(url, "causal-lm"), adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        agent = dspy.predict.ReActV2("question -> answer", tools=[get_weather], max_iters=2)
        result = agent(question=QUESTION)
    assert isinstance(result.answer, str)
    same(str(result.history).count(WEATHER), 2)


def response_answer(url: str) -> None:
    same(lm_of(url, model_type="responses")(QUESTION), [{"text": ANSWER}])


if __name__ == "__main__":
    declare()
    run(
        "dspy",
        {
            "chat": {"answer": answer, "schema": schema, "schema, streamed": schema_stream, "tools": tools},
            "Responses": {"answer": response_answer},
        },
    )
