import { afterEach, beforeEach, expect, test } from "vitest";

import { Rlaas, type Options } from "../src/index.js";
import { drawBackoffMs, readRetryAfterMs } from "../src/transport.js";
import { error, KEY, once, Service } from "./service.js";

const REQUEST = { skill: "greet", inputs: { name: "Ada" } };
const ANSWER = { interaction_id: "int_1", output_id: "out_1", text: "Hi Ada", feedback_token: "said.proof" };

let service: Service;
beforeEach(async () => {
  service = await new Service().start();
});
afterEach(() => service.stop());

function client(options: Partial<Options> = {}): Rlaas {
  return new Rlaas({ apiUrl: `${service.url}/`, apiKey: KEY, log: () => undefined, ...options });
}

test("a draft is asked for again under the same id while the service cannot answer", async () => {
  service.rules.push(
    once({ status: 503 }),
    once({ status: 429, headers: { "Retry-After": "0" } }),
    once({ status: 200, body: ANSWER }),
  );
  expect(await client().infer(REQUEST)).toEqual(ANSWER);
  const ids = service.received.map(({ body }) => body.interaction_id);
  expect(ids[0]).toMatch(/^int_/);
  expect(new Set(ids).size).toBe(1);
  expect(service.received[0]?.path).toBe("/v1/infer");
});

test("a token for a page is asked for again while the service cannot answer, and null where it refuses", async () => {
  service.rules.push(once({ status: 503 }), once({ status: 200, body: { feedback_token: "said.proof" } }));
  const output = { skill: "greet", output_id: "out_1", interaction_id: "int_1" };
  expect(await client().feedbackToken(output)).toBe("said.proof");
  expect(service.received.map(({ path, body }) => [path, body])).toEqual([
    ["/v1/feedback.token", output],
    ["/v1/feedback.token", output],
  ]);
  service.rules.push(once({ status: 403, body: error("forbidden") }));
  expect(await client().feedbackToken(output)).toBeNull();
});

test("what the service refuses is not asked again: null, or the error in a strict client", async () => {
  const refusal = once({ status: 404, body: error("not_found", "skill") });
  service.rules.push(refusal, refusal);
  expect(await client().infer(REQUEST)).toBeNull();
  await expect(client({ strict: true }).infer(REQUEST)).rejects.toMatchObject({
    status: 404,
    code: "not_found",
    param: "skill",
    requestId: "req_1",
  });
  expect(service.received).toHaveLength(2);
});

test("where nobody answers there is no draft, and no exception", async () => {
  await service.stop();
  expect(await client({ inferTimeoutMs: 10 }).infer(REQUEST)).toBeNull();
});

test("waits are drawn from all of [0, min(30 s, 0.2 s * 2^failures)]", () => {
  const drawBackoffs = (failures: number): number[] => Array.from({ length: 2000 }, () => drawBackoffMs(failures));
  for (const [failures, bound] of [
    [1, 400],
    [4, 3200],
    [50, 30_000],
  ] as const) {
    expect(Math.max(...drawBackoffs(failures))).toBeLessThanOrEqual(bound);
    expect(Math.max(...drawBackoffs(failures))).toBeGreaterThan(bound * 0.9);
    expect(Math.min(...drawBackoffs(failures))).toBeLessThan(bound * 0.1);
  }
});

test.each([
  ["7", 7000],
  ["0", 0],
  ["-3", 0],
  ["soon", 0],
  ["999999", 3_600_000],
  ["Wed, 21 Oct 2015 07:28:00 GMT", 0],
])("Retry-After %s asks for %i ms", (value, ms) => {
  expect(readRetryAfterMs(new Response(null, { headers: { "Retry-After": value } }))).toBe(ms);
});

test("Retry-After may be a date", () => {
  const date = new Date(Date.now() + 60_000).toUTCString();
  const ms = readRetryAfterMs(new Response(null, { headers: { "Retry-After": date } }));
  expect(ms).toBeGreaterThan(50_000);
  expect(ms).toBeLessThanOrEqual(60_000);
});

test("another site's answer is said to be one, once, without its text", async () => {
  const page = { headers: { "Content-Type": "text/html" }, stream: "<p>private</p>" };
  for (const status of [200, 403, 404]) {
    service.rules.push(once({ status, ...page }));
    await expect(client({ strict: true }).infer(REQUEST)).rejects.toMatchObject({
      status,
      message: `HTTP ${status} (text/html), and the response is not one of RLaaS's`,
    });
  }
  expect(service.received).toHaveLength(3);
});

test("where nobody answers the error says why", async () => {
  const options = { apiUrl: "http://127.0.0.1:9", strict: true };
  await expect(client(options).infer(REQUEST)).rejects.toMatchObject({ code: "no_answer", status: 0 });
  await expect(client(options).infer(REQUEST)).rejects.toThrow(/ECONNREFUSED|bad port/);
});

test("blanks and line breaks around the address and the key are not theirs; within a key they are refused", async () => {
  service.rules.push(once({ status: 200, body: ANSWER }));
  expect(await client({ apiUrl: ` ${service.url}/\n`, apiKey: `${KEY}\r\n` }).infer(REQUEST)).toEqual(ANSWER);
  expect(service.received[0]?.headers.authorization).toBe(`Bearer ${KEY}`);
  expect(() => client({ strict: true, apiKey: `${KEY}\n${KEY}` })).toThrow("apiKey must be");
  expect(() => client({ strict: true, apiUrl: "http://127.0.0.1:port" })).toThrow("apiUrl must be");
});

test("events that another site refuses are kept", async () => {
  const lines: string[] = [];
  service.rules.push(once({ status: 400, headers: { "Content-Type": "text/html" }, stream: "<p>private</p>" }));
  const rlaas = client({ spool: null, log: (line) => lines.push(line) });
  rlaas.logInteraction({ skill: "greet", inputs: { name: "Ada" } });
  expect(await rlaas.flush(10_000)).toBe(true);
  expect(rlaas.stats().dropped).toEqual({});
  expect(service.stored.size).toBe(1);
  expect(lines.join()).toContain("HTTP 400 (text/html), and the response is not one of RLaaS's");
});
