"""LlamaIndex's `OpenAILike`: chats, completions, structured output and agents."""

from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike

from tests.clients.checks import run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def llm_of(url: str, **more: Any) -> OpenAILike:
    return OpenAILike(
        model=MODEL,
        api_base=url,
        api_key=KEY,
        context_window=16_384,
        is_chat_model=True,
        is_function_calling_model=True,
        **more,
    )


def answer(url: str) -> None:
    same(llm_of(url).chat(MESSAGES).message.content, ANSWER)


def stream(url: str) -> None:
    same("".join(part.delta or "" for part in llm_of(url).stream_chat(MESSAGES)), ANSWER)


def schema(url: str) -> None:
    for llm in (llm_of(url), llm_of(url, should_use_structured_outputs=True)):
        review = llm.structured_predict(Review, PromptTemplate(QUESTION))
        assert isinstance(review, Review)


def schema_stream(url: str) -> None:
    *_, review = llm_of(url).stream_structured_predict(Review, PromptTemplate(QUESTION))
    Review.model_validate(review.model_dump())


async def agent(url: str) -> None:
    agent = FunctionAgent(tools=[get_weather], llm=llm_of(url), streaming=False)
    same(str(await agent.run(QUESTION)), ANSWER_AFTER_TOOL)


async def agent_stream(url: str) -> None:
    agent = FunctionAgent(tools=[get_weather], llm=llm_of(url))
    same(str(await agent.run(QUESTION)), ANSWER_AFTER_TOOL)


def completion(url: str) -> None:
    llm = OpenAILike(model=MODEL, api_base=url, api_key=KEY, max_tokens=4)
    assert llm.complete(QUESTION).raw.usage.completion_tokens > 0


def completion_stream(url: str) -> None:
    llm = OpenAILike(model=MODEL, api_base=url, api_key=KEY, max_tokens=4)
    assert list(llm.stream_complete(QUESTION))


if __name__ == "__main__":
    run(
        "llama-index-llms-openai-like",
        {
            "chat": {
                "answer": answer,
                "answer, streamed": stream,
                "schema": schema,
                "schema, streamed": schema_stream,
                "tools": agent,
                "tools, streamed": agent_stream,
            },
            "completions": {"answer": completion, "answer, streamed": completion_stream},
        },
    )
