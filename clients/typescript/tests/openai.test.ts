/** The real `openai` client, against a server on the loopback that speaks its protocol. */
import OpenAI from "openai";
import { afterEach, beforeEach, expect, test } from "vitest";

import { Rlaas, traceOf, wrapOpenAI } from "../src/index.js";
import { KEY, once, Service } from "./service.js";

const ASKED = {
  model: "gpt-4o-mini",
  messages: [
    { role: "developer" as const, content: "Be kind." },
    { role: "user" as const, content: [{ type: "text" as const, text: "Hi" }] },
  ],
};
const COMPLETION = {
  id: "chatcmpl-1",
  object: "chat.completion",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 },
};
const CHUNKS = [
  { choices: [{ index: 0, delta: { content: "Hel" } }] },
  { choices: [{ index: 0, delta: { content: "lo" }, finish_reason: "stop" }] },
  { choices: [], usage: { prompt_tokens: 9, completion_tokens: 2, total_tokens: 11 } },
];
const STREAM = `${CHUNKS.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("")}data: [DONE]\n\n`;

let service: Service;
let rlaas: Rlaas;
let plain: OpenAI;
let traced: OpenAI;
beforeEach(async () => {
  service = await new Service().start();
  rlaas = new Rlaas({ apiUrl: service.url, apiKey: KEY, flushIntervalMs: 3_600_000, log: () => undefined });
  plain = new OpenAI({ baseURL: service.url, apiKey: "sk", maxRetries: 0 });
  traced = wrapOpenAI(plain, { rlaas, skill: "greet", thread_id: "t-1" });
});
afterEach(() => service.stop());

async function events(): Promise<Record<string, unknown>[]> {
  await rlaas.flush();
  return [...service.stored.values()];
}

test("a completion comes back unchanged and is an interaction and its output", async () => {
  service.rules.push(once({ status: 200, body: COMPLETION }));
  const completion = await traced.chat.completions.create(ASKED);
  expect(completion).toMatchObject(COMPLETION);
  const [interaction, output] = await events();
  expect(interaction).toMatchObject({
    type: "interaction",
    skill: "greet",
    thread_id: "t-1",
    messages: [
      { role: "system", content: "Be kind." },
      { role: "user", content: "Hi" },
    ],
    metadata: { model: "gpt-4o-mini" },
  });
  expect(output).toMatchObject({
    type: "output",
    text: "Hello",
    finish_reason: "stop",
    usage: { input_tokens: 9, output_tokens: 2 },
    latency_ms: expect.any(Number) as number,
  });
  expect(traceOf(completion)).toEqual({ interaction_id: interaction?.interaction_id, output_id: output?.output_id });
});

test("a stream is passed on chunk by chunk and reported when it ends", async () => {
  service.rules.push(once({ status: 200, stream: STREAM }));
  const stream = await traced.chat.completions.create({ ...ASKED, stream: true });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  expect(chunks).toEqual(CHUNKS);
  const [interaction, output] = await events();
  expect(output).toMatchObject({ text: "Hello", finish_reason: "stop", usage: { input_tokens: 9, output_tokens: 2 } });
  expect(traceOf(stream)?.interaction_id).toBe(interaction?.interaction_id);
});

test("a stream that is left early is reported as far as it was read", async () => {
  service.rules.push(once({ status: 200, stream: STREAM }));
  for await (const chunk of await traced.chat.completions.create({ ...ASKED, stream: true })) {
    expect(chunk).toEqual(CHUNKS[0]);
    break;
  }
  expect((await events())[1]).toMatchObject({ text: "Hel", finish_reason: null });
});

test("the client's own ways still work: tee, toReadableStream, withResponse, asResponse", async () => {
  for (let number = 0; number < 2; number++) service.rules.push(once({ status: 200, stream: STREAM }));
  for (let number = 0; number < 2; number++) service.rules.push(once({ status: 200, body: COMPLETION }));
  const [left, right] = (await traced.chat.completions.create({ ...ASKED, stream: true })).tee();
  for (const half of [left, right]) {
    const chunks = [];
    for await (const chunk of half) chunks.push(chunk);
    expect(chunks).toEqual(CHUNKS);
  }
  const readable = (await traced.chat.completions.create({ ...ASKED, stream: true })).toReadableStream();
  expect(await new Response(readable).text()).toBe(CHUNKS.map((chunk) => `${JSON.stringify(chunk)}\n`).join(""));
  const { data, response } = await traced.chat.completions.create(ASKED).withResponse();
  expect([data.id, response.status]).toEqual(["chatcmpl-1", 200]);
  expect(await (await traced.chat.completions.create(ASKED).asResponse()).json()).toEqual(COMPLETION);
  expect((await events()).filter(({ type }) => type === "output")).toHaveLength(4);
});

test("a parsed completion is traced as any other", async () => {
  const json = { ...COMPLETION.choices[0], message: { role: "assistant", content: '{"a":1}' } };
  service.rules.push(once({ status: 200, body: { ...COMPLETION, choices: [json] } }));
  const response_format = { type: "json_schema" as const, json_schema: { name: "a", schema: {} } };
  const parsed = await traced.chat.completions.parse({ ...ASKED, response_format });
  const [interaction, output] = await events();
  expect(output).toMatchObject({ text: '{"a":1}', finish_reason: "stop" });
  expect(traceOf(parsed)?.interaction_id).toBe(interaction?.interaction_id);
});

test("a stream that breaks throws what it threw, and is reported as far as it came, with the error's name", async () => {
  service.rules.push(once({ status: 200, stream: `data: ${JSON.stringify(CHUNKS[0])}\n\ndata: {broken\n\n` }));
  const read = async (): Promise<void> => {
    for await (const chunk of await traced.chat.completions.create({ ...ASKED, stream: true }))
      expect(chunk).toEqual(CHUNKS[0]);
  };
  await expect(read()).rejects.toBeInstanceOf(SyntaxError);
  const [interaction, output] = await events();
  expect(output).toMatchObject({ text: "Hel", finish_reason: null });
  expect(interaction?.metadata).toMatchObject({ error: "SyntaxError" });
});

test("what the host asks for wrongly is for the original client to refuse", async () => {
  service.rules.push(once({ status: 400, body: { error: { message: "bad messages" } } }));
  const bad = { model: "gpt-4o-mini", messages: [null, { role: "user", content: [null] }] } as never;
  await expect(traced.chat.completions.create(bad)).rejects.toBeInstanceOf(OpenAI.BadRequestError);
});

test("an error is the client's own, and the interaction is reported with its name", async () => {
  service.rules.push(once({ status: 401, body: { error: { message: "bad key" } } }));
  await expect(traced.chat.completions.create(ASKED)).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  expect(await events()).toMatchObject([
    { type: "interaction", metadata: { model: "gpt-4o-mini", error: "AuthenticationError" } },
  ]);
});

test("the original client, its other parts, and models that RLaaS serves are not traced", async () => {
  for (let number = 0; number < 2; number++) service.rules.push(once({ status: 200, body: COMPLETION }));
  await plain.chat.completions.create(ASKED);
  await traced.chat.completions.create({ ...ASKED, model: "rlaas::greet" });
  service.rules.push(once({ status: 200, body: { object: "list", data: [] } }));
  await traced.embeddings.create({ model: "m", input: "x", encoding_format: "float" });
  expect(traced.baseURL).toBe(service.url);
  expect(await events()).toEqual([]);
});

test("when a strict client cannot report, the host still has its answer", async () => {
  service.rules.push(once({ status: 200, body: COMPLETION }));
  const full = new Rlaas({ apiUrl: service.url, apiKey: KEY, strict: true, maxBytes: 1, log: () => undefined });
  const completion = await wrapOpenAI(plain, { rlaas: full, skill: "greet" }).chat.completions.create(ASKED);
  expect(completion.id).toBe("chatcmpl-1");
});
