// Vercel's AI SDK, with its OpenAI provider (the Responses API unless `.chat`) and its OpenAI-compatible one.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { ANSWER, ANSWER_AFTER_TOOL, City, KEY, MODEL, QUESTION, Review, run, same, WEATHER } from "./subject.mjs";

const compatible = (supportsStructuredOutputs) => (baseURL) =>
  createOpenAICompatible({ name: "server", baseURL, apiKey: KEY, includeUsage: true, supportsStructuredOutputs })(MODEL);
const weather = tool({
  description: "Get the weather of a city.",
  inputSchema: City,
  execute: async () => WEATHER,
});

function checksOf(modelOf) {
  const asked = (url) => ({ model: modelOf(url), prompt: QUESTION, maxRetries: 0 });
  const shaped = (url) => ({ ...asked(url), output: Output.object({ schema: Review }) });
  const calling = (url) => ({ ...asked(url), tools: { get_weather: weather }, stopWhen: stepCountIs(3) });
  const streamed = (options) => {
    let failure;
    const result = streamText({ ...options, onError: ({ error }) => (failure = error) });
    return { result, check: () => { if (failure) throw failure; } };
  };
  return {
    answer: async (url) => {
      const { text, usage } = await generateText(asked(url));
      same(text, ANSWER);
      same(usage.outputTokens > 1, true);
    },
    "answer, streamed": async (url) => {
      const { result, check } = streamed(asked(url));
      let text = "";
      for await (const part of result.textStream) text += part;
      check();
      same(text, ANSWER);
      same((await result.usage).outputTokens > 1, true);
    },
    schema: async (url) => Review.parse((await generateText(shaped(url))).output),
    "schema, streamed": async (url) => {
      const { result, check } = streamed(shaped(url));
      let last;
      for await (const part of result.partialOutputStream) last = part;
      check();
      Review.parse(last);
    },
    tools: async (url) => same((await generateText(calling(url))).text, ANSWER_AFTER_TOOL),
    "tools, streamed": async (url) => {
      const { result, check } = streamed(calling(url));
      const kinds = new Set();
      for await (const part of result.fullStream) kinds.add(part.type);
      check();
      same([kinds.has("tool-call"), kinds.has("tool-result")], [true, true]);
      same(await result.text, ANSWER_AFTER_TOOL);
    },
  };
}

const openai = (baseURL) => createOpenAI({ baseURL, apiKey: KEY });
await run("ai", {
  "Responses, @ai-sdk/openai": checksOf((url) => openai(url)(MODEL)),
  "chat, @ai-sdk/openai": checksOf((url) => openai(url).chat(MODEL)),
  "chat, @ai-sdk/openai-compatible": checksOf(compatible(true)),
});
