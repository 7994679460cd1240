"""Requests to Anthropic's Messages API: what one holds, and the chat that it asks for.

Imported with the first of them.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from msgspec import Meta

from api.errors import ApiError, InvalidRequestError
from api.model import Model
from api.preparation import PreparedRequest
from api.schema import MAX_STOPS, MAX_TOOLS, ChatRequest, Strict
from api.translated import TranslatedRequest
from api.validation import validate

if TYPE_CHECKING:
    from api.anthropic_answer import StreamedMessage, WholeMessage
    from api.anthropic_object import MessageError

REQUIRED = {"text": ("text",), "thinking": ("thinking",), "tool_use": ("id", "name"), "tool_result": ("tool_use_id",)}
"""What blocks of a type need."""


class Text(Strict, frozen=True):
    """A text where nothing else may stand."""

    type: Literal["text"]
    text: str
    # Without effect:
    cache_control: dict[str, Any] = {}
    citations: list[Any] = []


class Block(Strict, frozen=True):
    """A part of a message: a text, a thought, a tool call of an earlier answer, or a call's result."""

    inner: ClassVar = {"content": Text}
    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] = {}
    tool_use_id: str | None = None
    content: str | list[Text] = ""
    # Without effect:
    cache_control: dict[str, Any] = {}
    caller: dict[str, Any] = {}
    citations: list[Any] = []
    is_error: bool = False
    parsed_output: Any = None
    signature: str = ""


class Turn(Strict, frozen=True):
    inner: ClassVar = {"content": Block}
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class CustomTool(Strict, frozen=True):
    name: str
    input_schema: dict[str, Any]
    type: Literal["custom"] = "custom"
    description: str | None = None
    strict: bool = False
    # Without effect:
    cache_control: dict[str, Any] = {}
    eager_input_streaming: bool = False
    input_examples: list[Any] = []


class Choice(Strict, frozen=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class SchemaFormat(Strict, frozen=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Strict, frozen=True):
    inner: ClassVar = {"format": SchemaFormat}
    effort: str | None = None
    format: SchemaFormat | None = None


class Thinking(Strict, frozen=True):
    type: Literal["enabled", "disabled", "adaptive"]
    # Without effect:
    budget_tokens: int = 0
    display: str | None = None


class MessagesRequest(TranslatedRequest, frozen=True, kw_only=True):
    """`POST /v1/messages`."""

    inner: ClassVar = {
        "messages": Turn,
        "system": Text,
        "tools": CustomTool,
        "tool_choice": Choice,
        "output_config": OutputConfig,
        "thinking": Thinking,
    }
    shapes: ClassVar = {"tool_choice": "an object whose type is 'auto', 'any', 'tool' or 'none'"}
    own_names: ClassVar = {
        "stop": "stop_sequences",
        "response_format.json_schema.schema": "output_config.format.schema",
        "reasoning_effort": "output_config.effort",
        "tool_choice.function.name": "tool_choice.name",
    }
    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)]
    model: str | None = None
    system: str | list[Text] = ""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=MAX_STOPS)] = []
    tools: Annotated[list[CustomTool], Meta(max_length=MAX_TOOLS)] = []
    tool_choice: Choice = Choice("auto")
    output_config: OutputConfig = OutputConfig()
    thinking: Annotated[Thinking, Meta(description="For chat templates with `enable_thinking`.")] | None = None
    # Without effect:
    cache_control: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    service_tier: str | None = None

    def as_chat(self) -> ChatRequest:
        """The chat. A last message of the assistant is continued. InvalidRequestError for what no chat can be asked."""
        form = self.output_config.format
        asked: dict[str, Any] = {
            "model": self.model,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stream": self.stream,
            "stop": self.stop_sequences,
            "messages": _messages(self),
            "max_tokens": self.max_tokens,
            "reasoning_effort": self.output_config.effort,
            "continue_final_message": self.messages[-1].role == "assistant",
            "tool_choice": _choice(self.tool_choice),
        }
        if form is not None:
            asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "", "schema": form.schema}}
        if self.thinking is not None:
            asked["chat_template_kwargs"] = {"enable_thinking": self.thinking.type != "disabled"}
        if self.tools:
            asked["tools"] = [_tool(tool) for tool in self.tools]
            asked["parallel_tool_calls"] = not self.tool_choice.disable_parallel_tool_use
        return validate(ChatRequest, asked)

    def whole(self, prepared: PreparedRequest, model: Model) -> "WholeMessage":
        """See TranslatedRequest."""
        from api.anthropic_answer import WholeMessage

        return WholeMessage(prepared, model)

    def streamed(self, prepared: PreparedRequest, model: Model) -> "StreamedMessage":
        """See TranslatedRequest."""
        from api.anthropic_answer import StreamedMessage

        return StreamedMessage(prepared, model)

    def failed(self, error: ApiError, number: int) -> "MessageError":
        """See TranslatedRequest."""
        from api.anthropic_error import message_error

        return message_error(error)


def _messages(request: MessagesRequest) -> list[dict[str, Any]]:
    """The messages of a chat that say what `system` and `messages` say."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": _text(request.system)})
    for index, turn in enumerate(request.messages):
        path = f"messages[{index}].content"
        said = _said(turn, path)
        if not said:
            raise InvalidRequestError(f"'{path}' is empty; send at least one character of text.", param=path)
        messages += said
    return messages


def _said(turn: Turn, path: str) -> list[dict[str, Any]]:
    """The messages of a chat that say what a turn says, whose content is at `path`: the results of calls first."""
    message: dict[str, Any] = {"role": turn.role, "content": ""}
    results: list[dict[str, Any]] = []
    for number, block in enumerate([Block("text", turn.content)] if isinstance(turn.content, str) else turn.content):
        where = f"{path}[{number}]"
        if missing := next((name for name in REQUIRED[block.type] if getattr(block, name) is None), None):
            raise InvalidRequestError(f"'{where}.{missing}' is required.", param=f"{where}.{missing}")
        if block.type == "text":
            message["content"] += block.text
        elif (block.type == "tool_result") == (turn.role == "assistant") or turn.role == "system":
            raise InvalidRequestError(f"'{where}' does not belong to a message of this role.", param=where)
        elif block.type == "tool_result":
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content)})
        elif block.type == "tool_use":
            function = {"name": block.name, "arguments": block.input}
            message.setdefault("tool_calls", []).append({"id": block.id, "function": function})
        else:
            message["reasoning_content"] = message.get("reasoning_content", "") + block.thinking
    return [*results, message] if message["content"] or turn.role == "assistant" else results


def _text(content: str | list[Text]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool(tool: CustomTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": {**function, "strict": tool.strict}}


def _choice(choice: Choice) -> str | dict[str, Any]:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type
