/** Every way in which the real `openai` client is asked: the host sees the same, and each call is reported once. */
import OpenAI from "openai";
import { afterEach, beforeEach, expect, test } from "vitest";

import { Rlaas, traceOf, wrapOpenAI } from "../src/index.js";
import { KEY, once, Service } from "./service.js";

const ASKED = { model: "gpt", messages: [{ role: "user" as const, content: "Hi" }] };
const USAGE = { prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 };
const CALL = { id: "call_1", type: "function", function: { name: "look", arguments: '{"n":1}' } };
const TEXT = { role: "assistant", content: "Hello" };
const MESSAGE = { id: "m", type: "message", role: "assistant", status: "completed" };
const OUTPUT = [{ ...MESSAGE, content: [{ type: "output_text", text: "Hello", annotations: [] }] }];
let number = 0;
const completion = (message: object = TEXT): { id: string } & Record<string, unknown> => ({
  id: `chatcmpl-${++number}`,
  object: "chat.completion",
  choices: [{ index: 0, message, finish_reason: "tool_calls" in message ? "tool_calls" : "stop" }],
  usage: USAGE,
});
const response = (): { id: string } & Record<string, unknown> => ({
  id: `resp_${++number}`,
  object: "response",
  status: "completed",
  output: OUTPUT,
  usage: { input_tokens: 9, output_tokens: 2 },
});
const sse = (parts: object[]): string => parts.map((part) => `data: ${JSON.stringify(part)}\n\n`).join("");
const chatStream = (): string => {
  const id = `chatcmpl-${++number}`;
  const deltas = [{ role: "assistant", content: "Hel" }, { content: "lo" }, {}];
  const choices = deltas.map((delta, index) => ({ index: 0, delta, finish_reason: index === 2 ? "stop" : null }));
  const chunks = choices.map((choice) => ({ id, object: "chat.completion.chunk", choices: [choice] }));
  return `${sse(chunks)}data: [DONE]\n\n`;
};
const responseStream = (): string => {
  const whole = response();
  const place = { output_index: 0, content_index: 0, item_id: "m" };
  const events = [
    { type: "response.created", response: { ...whole, status: "in_progress", output: [], usage: null } },
    { type: "response.output_item.added", output_index: 0, item: { ...MESSAGE, content: [] } },
    { type: "response.content_part.added", ...place, part: { type: "output_text", text: "", annotations: [] } },
    { type: "response.output_text.delta", ...place, delta: "Hello", logprobs: [] },
    { type: "response.output_item.done", output_index: 0, item: OUTPUT[0] },
    { type: "response.completed", response: whole },
  ];
  return sse(events.map((event, index) => ({ ...event, sequence_number: index })));
};

let service: Service;
let rlaas: Rlaas;
let plain: OpenAI;
let traced: OpenAI;
beforeEach(async () => {
  service = await new Service().start();
  rlaas = new Rlaas({ apiUrl: service.url, apiKey: KEY, flushIntervalMs: 3_600_000, log: () => undefined });
  plain = new OpenAI({ baseURL: service.url, apiKey: "sk", maxRetries: 0 });
  traced = wrapOpenAI(plain, { rlaas, skill: "greet" });
});
afterEach(async () => {
  await rlaas.close();
  await service.stop();
});

async function events(type: string): Promise<Record<string, unknown>[]> {
  await rlaas.flush();
  return [...service.stored.values()].filter((event) => event.type === type);
}

type Way = (client: OpenAI) => Promise<{ text: unknown; answers: object[] }>;
const chatWays: Record<string, [Way, boolean]> = {
  create: [
    async (client) => {
      const answer = await client.chat.completions.create(ASKED);
      return { text: answer.choices[0]?.message.content, answers: [answer] };
    },
    false,
  ],
  parse: [
    async (client) => {
      const answer = await client.chat.completions.parse(ASKED);
      return { text: answer.choices[0]?.message.content, answers: [answer] };
    },
    false,
  ],
  "a copy's create": [
    async (client) => {
      const answer = await client.withOptions({ timeout: 5000 }).chat.completions.create(ASKED);
      return { text: answer.choices[0]?.message.content, answers: [answer] };
    },
    false,
  ],
  withResponse: [
    async (client) => {
      const { data, response: raw } = await client.chat.completions.create(ASKED).withResponse();
      expect(raw).toBeInstanceOf(Response);
      return { text: data.choices[0]?.message.content, answers: [data] };
    },
    false,
  ],
  asResponse: [
    async (client) => {
      const raw = await client.chat.completions.create(ASKED).asResponse();
      const body = (await raw.json()) as OpenAI.ChatCompletion;
      return { text: body.choices[0]?.message.content, answers: [raw] };
    },
    false,
  ],
  stream: [
    async (client) => {
      const stream = client.chat.completions.stream(ASKED);
      const answer = await stream.finalChatCompletion();
      return { text: answer.choices[0]?.message.content, answers: [stream, answer] };
    },
    true,
  ],
};
const responseWays: Record<string, [Way, boolean]> = {
  create: [
    async (client) => {
      const answer = await client.responses.create({ model: "gpt", input: "Hi" });
      return { text: answer.output_text, answers: [answer] };
    },
    false,
  ],
  parse: [
    async (client) => {
      const answer = await client.responses.parse({ model: "gpt", input: "Hi" });
      return { text: answer.output_text, answers: [answer] };
    },
    false,
  ],
  asResponse: [
    async (client) => {
      const raw = await client.responses.create({ model: "gpt", input: "Hi" }).asResponse();
      return { text: ((await raw.json()) as { output: typeof OUTPUT }).output[0]?.content[0]?.text, answers: [raw] };
    },
    false,
  ],
  stream: [
    async (client) => {
      const stream = client.responses.stream({ model: "gpt", input: "Hi" });
      const answer = await stream.finalResponse();
      return { text: answer.output_text, answers: [stream, answer] };
    },
    true,
  ],
};
const WAYS = [
  ...Object.entries(chatWays).map(([name, way]) => ["chat completions", name, ...way] as const),
  ...Object.entries(responseWays).map(([name, way]) => ["responses", name, ...way] as const),
];

test.each(WAYS)("%s: %s gives the host the same, and is reported once", async (api, _name, way, isStream) => {
  const reply = (): object => {
    if (isStream) return { status: 200, stream: api === "responses" ? responseStream() : chatStream() };
    return { status: 200, body: api === "responses" ? response() : completion() };
  };
  service.rules.push(once(reply() as never));
  const expected = await way(plain);
  service.rules.push(once(reply() as never));
  const { text, answers } = await way(traced);
  expect(text).toBe(expected.text);
  expect(answers.map((answer) => answer.constructor)).toEqual(expected.answers.map((answer) => answer.constructor));
  const [interaction, ...others] = await events("interaction");
  const outputs = await events("output");
  expect([others, outputs.length]).toEqual([[], 1]);
  expect(interaction?.messages).toEqual([{ role: "user", content: "Hi" }]);
  expect(outputs[0]).toMatchObject({ text: "Hello", finish_reason: "stop" });
  const trace = { interaction_id: interaction?.interaction_id, output_id: outputs[0]?.output_id };
  for (const answer of answers) expect(traceOf(answer)).toEqual(trace);
});

test("each call of runTools is reported with its tools, their calls and results", async () => {
  const first = { role: "assistant", content: null, tool_calls: [CALL] };
  service.rules.push(once({ status: 200, body: completion(first) }), once({ status: 200, body: completion() }));
  const definition = { name: "look", description: "Looks.", parameters: { type: "object" } };
  const runner = traced.chat.completions.runTools({
    ...ASKED,
    tools: [{ type: "function", function: { ...definition, function: () => "found" } }],
  });
  expect(await runner.finalContent()).toBe("Hello");
  const [asked, askedAgain] = await events("interaction");
  const [called, answered] = await events("output");
  expect(asked?.parameters).toMatchObject({ tools: [{ type: "function", function: definition }] });
  expect(called).toMatchObject({ text: "", finish_reason: "tool_calls", tool_calls: [CALL] });
  expect(askedAgain?.messages).toEqual([
    { role: "user", content: "Hi" },
    { role: "assistant", content: "", tool_calls: [CALL] },
    { role: "tool", content: "found", tool_call_id: "call_1" },
  ]);
  expect(traceOf(runner)?.output_id).toBe(answered?.output_id);
});

test("an outage of the service changes nothing for the host", async () => {
  const down = new Rlaas({ apiUrl: "http://127.0.0.1:9", apiKey: KEY, strict: true, log: () => undefined });
  const asked = wrapOpenAI(plain, { rlaas: down, skill: "greet" });
  for (const [api, , way, isStream] of WAYS) {
    const reply = (): Parameters<typeof once>[0] =>
      isStream
        ? { status: 200, stream: api === "responses" ? responseStream() : chatStream() }
        : { status: 200, body: api === "responses" ? response() : completion() };
    service.rules.push(once(reply()));
    const { text } = await way(asked);
    service.rules.push(once(reply()));
    expect(text).toBe((await way(plain)).text);
  }
  expect(down.stats().accepted).toBe(2 * WAYS.length);
  await down.close(0).catch(() => undefined);
});
