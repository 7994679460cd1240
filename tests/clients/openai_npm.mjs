// OpenAI's own package for JavaScript: chats and the Responses API.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ANSWER, ANSWER_AFTER_TOOL, City, KEY, MODEL, QUESTION, Review, run, same, WEATHER } from "./subject.mjs";

const clientOf = (baseURL) => new OpenAI({ baseURL, apiKey: KEY });
const messages = [{ role: "user", content: QUESTION }];
const chat = { model: MODEL, messages };
const response = { model: MODEL, input: QUESTION };
const tool = zodFunction({ name: "get_weather", parameters: City, function: () => WEATHER });
const responseTool = {
  type: "function",
  name: "get_weather",
  description: "Get the weather of a city.",
  parameters: z.toJSONSchema(City),
  strict: true,
};

async function answer(url) {
  const completion = await clientOf(url).chat.completions.create(chat);
  same(completion.choices[0].message.content, ANSWER);
}

async function stream(url) {
  let text = "";
  const asked = { ...chat, stream: true, stream_options: { include_usage: true } };
  for await (const part of await clientOf(url).chat.completions.create(asked)) {
    text += part.choices[0]?.delta.content ?? "";
  }
  same(text, ANSWER);
}

async function schema(url) {
  const asked = { ...chat, response_format: zodResponseFormat(Review, "review") };
  Review.parse((await clientOf(url).chat.completions.parse(asked)).choices[0].message.parsed);
}

async function schemaStream(url) {
  const asked = { ...chat, response_format: zodResponseFormat(Review, "review") };
  Review.parse((await clientOf(url).chat.completions.stream(asked).finalChatCompletion()).choices[0].message.parsed);
}

const tools = async (url) =>
  same(await clientOf(url).chat.completions.runTools({ ...chat, tools: [tool] }).finalContent(), ANSWER_AFTER_TOOL);

const toolsStream = async (url) =>
  same(
    await clientOf(url).chat.completions.runTools({ ...chat, tools: [tool], stream: true }).finalContent(),
    ANSWER_AFTER_TOOL,
  );

const responseAnswer = async (url) => same((await clientOf(url).responses.create(response)).output_text, ANSWER);

async function responseStream(url) {
  let text = "";
  for await (const event of await clientOf(url).responses.create({ ...response, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  same(text, ANSWER);
}

async function responseSchema(url) {
  const asked = { ...response, text: { format: zodTextFormat(Review, "review") } };
  Review.parse((await clientOf(url).responses.parse(asked)).output_parsed);
}

async function responseTools(url) {
  const client = clientOf(url);
  const { output } = await client.responses.create({ ...response, tools: [responseTool] });
  await answerCall(client, output);
}

async function responseToolsStream(url) {
  const client = clientOf(url);
  const { output } = await client.responses.stream({ ...response, tools: [responseTool] }).finalResponse();
  await answerCall(client, output);
}

async function answerCall(client, output) {
  City.parse(JSON.parse(output[0].arguments));
  const result = { type: "function_call_output", call_id: output[0].call_id, output: WEATHER };
  const after = await client.responses.create({ model: MODEL, input: [...messages, ...output, result] });
  same(after.output_text, ANSWER_AFTER_TOOL);
}

await run("openai", {
  chat: {
    answer,
    "answer, streamed": stream,
    schema,
    "schema, streamed": schemaStream,
    tools,
    "tools, streamed": toolsStream,
  },
  Responses: {
    answer: responseAnswer,
    "answer, streamed": responseStream,
    schema: responseSchema,
    tools: responseTools,
    "tools, streamed": responseToolsStream,
  },
});
