"""Requests to OpenAI's Responses API: what one holds, and the chat that it asks for.

Imported with the first of them. Nothing is stored here: who continues a conversation sends all of it again.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from msgspec import Meta

from api.errors import ApiError, InvalidRequestError
from api.model import Model
from api.preparation import PreparedRequest
from api.schema import MAX_TOOLS, ChatRequest, StreamOptions, Strict
from api.translated import TranslatedRequest
from api.validation import validate

if TYPE_CHECKING:
    from api.response_answer import StreamedResponse, WholeResponse

KEPT = ("previous_response_id", "conversation", "prompt", "background")
"""Parameters that ask for something which a server has stored, or is to store."""
SAME = (
    *("model", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stream"),
    *("prompt_cache_key", "cache_salt", "chat_template_kwargs", "parallel_tool_calls"),
)
"""Parameters that mean what they mean in a chat, which checks them."""


class ContentPart(Strict, frozen=True):
    """A text. Those of earlier answers have more fields, without effect."""

    type: Literal["input_text", "output_text", "reasoning_text"]
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []
    parsed: Any = None


class Item(Strict, frozen=True):
    """A message, or what an earlier answer had beside one, or the output of a function that it called."""

    inner: ClassVar = {"content": ContentPart, "output": ContentPart}
    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ContentPart] = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str = "{}"
    output: str | list[ContentPart] = ""
    # Of earlier answers, without effect:
    encrypted_content: str | None = None
    id: str | None = None
    parsed_arguments: Any = None
    phase: str | None = None
    status: str | None = None
    summary: list[Any] = []


class TextFormat(Strict, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool = False
    """Without effect: a schema is always followed."""


class TextOptions(Strict, frozen=True):
    inner: ClassVar = {"format": TextFormat}
    format: TextFormat = TextFormat("text")
    verbosity: str | None = None
    """Without effect."""


class ReasoningOptions(Strict, frozen=True):
    effort: str | None = None
    # Without effect:
    generate_summary: str | None = None
    summary: str | None = None


class FunctionTool(Strict, frozen=True):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class NamedTool(Strict, frozen=True):
    type: Literal["function"]
    name: str


class ResponseRequest(TranslatedRequest, frozen=True, kw_only=True):
    """`POST /v1/responses`."""

    own_names: ClassVar = {
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format.json_schema.name": "text.format.name",
        "response_format.json_schema.schema": "text.format.schema",
    }
    inner: ClassVar = {
        "input": Item,
        "text": TextOptions,
        "reasoning": ReasoningOptions,
        "stream_options": StreamOptions,
        "tools": FunctionTool,
        "tool_choice": NamedTool,
    }
    shapes: ClassVar = {
        "include": "a list of nothing but 'message.output_text.logprobs' and 'reasoning.encrypted_content'",
        "tool_choice": "'none', 'auto', 'required' or an object that names a function",
    }
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    model: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, description="What the context leaves, by default.")] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    text: TextOptions = TextOptions()
    reasoning: ReasoningOptions = ReasoningOptions()
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] = []
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0
    prompt_cache_key: Annotated[str, Meta(max_length=256)] | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    chat_template_kwargs: dict[str, str | bool | int | float] = {}
    truncation: Literal["disabled"] = "disabled"
    # Without effect:
    background: Literal[False] = False
    max_tool_calls: int | None = None
    metadata: dict[str, Any] = {}
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool = True
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def logprobs(self) -> bool:
        """Whether the answer's text comes with its tokens."""
        return "message.output_text.logprobs" in self.include

    def as_chat(self) -> ChatRequest:
        """The chat. InvalidRequestError for what no chat can be asked for."""
        form, choice = self.text.format, self.tool_choice
        asked: dict[str, Any] = {
            **{name: getattr(self, name) for name in SAME},
            "messages": _messages(self),
            "max_completion_tokens": self.max_output_tokens,
            "reasoning_effort": self.reasoning.effort,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs if self.logprobs else None,
            "response_format": {"type": form.type},
            "tool_choice": choice if isinstance(choice, str) else _as_chats(choice),
        }
        if form.type == "json_schema":
            if form.schema is None:
                raise InvalidRequestError("'text.format.schema' is required.", param="text.format.schema")
            asked["response_format"]["json_schema"] = {"name": form.name, "schema": form.schema}
        if self.tools:
            asked["tools"] = [_as_chats(tool) for tool in self.tools]
        return validate(ChatRequest, asked)

    def whole(self, prepared: PreparedRequest, model: Model) -> "WholeResponse":
        """See TranslatedRequest."""
        from api.response_answer import WholeResponse

        return WholeResponse(prepared, self, model)

    def streamed(self, prepared: PreparedRequest, model: Model) -> "StreamedResponse":
        """See TranslatedRequest."""
        from api.response_answer import StreamedResponse

        return StreamedResponse(prepared, self, model)

    def failed(self, error: ApiError, number: int) -> dict[str, Any]:
        """See TranslatedRequest."""
        envelope = error.envelope()
        return {**envelope["error"], **envelope, "type": "error", "sequence_number": number}


def parse(body: Any) -> ResponseRequest:
    """The request in a JSON body. InvalidRequestError with one sentence about its first fault."""
    for name in KEPT if isinstance(body, dict) else ():
        if body.get(name) not in (None, False):
            raise InvalidRequestError(
                f"'{name}' needs a server that stores answers; this one stores nothing: send everything in 'input'.",
                param=name,
            )
    if isinstance(body, dict) and not isinstance(body.get("input", ""), (str, list, type(None))):
        raise InvalidRequestError("'input' must be a string or a list of items.", param="input")
    return validate(ResponseRequest, body)


def _messages(request: ResponseRequest) -> list[dict[str, Any]]:
    """The messages of a chat that say what `instructions` and `input` say."""
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    thought = ""  # before the answer that comes next
    for index, item in enumerate(request.input):
        path = f"input[{index}]"
        if item.type == "reasoning":
            thought += _text(item.content)
            continue
        if item.type == "message":
            messages.append({"role": _given(item.role, f"{path}.role"), "content": _text(item.content)})
        elif item.type == "function_call":
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            function = {"name": _given(item.name, f"{path}.name"), "arguments": item.arguments}
            call = {"id": _given(item.call_id, f"{path}.call_id"), "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            call_id = _given(item.call_id, f"{path}.call_id")
            messages.append({"role": "tool", "tool_call_id": call_id, "content": _text(item.output)})
        if thought and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = messages[-1].get("reasoning_content", "") + thought
        thought = ""
    return messages


def _given(value: str | None, path: str) -> str:
    if value is None:
        raise InvalidRequestError(f"'{path}' is required.", param=path)
    return value


def _text(content: str | list[ContentPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _as_chats(tool: FunctionTool | NamedTool) -> dict[str, Any]:
    """A tool, or the choice of one, as chats have it."""
    function = {name: getattr(tool, name) for name in tool.__struct_fields__ if name != "type"}
    return {"type": "function", "function": function}
