import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Rlaas, RlaasError, type Entry, type Options, type Spool } from "../src/index.js";
import { error, KEY, once, results, Service } from "./service.js";

const DRAFT = { skill: "support-email-draft", interaction_id: "int_01JD0000000000000000000001" } as const;
const HOUR_MS = 3_600_000;

let service: Service;
let clients: Rlaas[];
let lines: string[];

beforeEach(async () => {
  service = await new Service().start();
  clients = [];
  lines = [];
});
afterEach(async () => {
  await service.stop();
  await Promise.all(clients.map((client) => client.close(0).catch(() => false)));
});

/** A client that sends when it is flushed, and not by itself. */
function client(options: Partial<Options> = {}): Rlaas {
  const client = new Rlaas({
    apiUrl: service.url,
    apiKey: KEY,
    flushIntervalMs: HOUR_MS,
    log: (line) => lines.push(line),
    ...options,
  });
  clients.push(client);
  return client;
}

function rate(rlaas: Rlaas, rating: number): string {
  return rlaas.submitFeedback({ ...DRAFT, kind: "rating", rating });
}

class MapSpool implements Spool {
  readonly entries = new Map<string, Entry>();
  put(entries: readonly Entry[]): void {
    for (const entry of entries) this.entries.set(entry.key, entry);
  }
  list(): Entry[] {
    return [...this.entries.values()];
  }
  delete(keys: readonly string[]): void {
    for (const key of keys) this.entries.delete(key);
  }
}

test("events go out together, in order, with the key and their time", async () => {
  const rlaas = client();
  const interaction = rlaas.logInteraction({ skill: "greet", inputs: { name: "Ada" } });
  const output = rlaas.logOutput({ skill: "greet", interaction_id: interaction, text: "Hi" });
  const feedback = rlaas.submitFeedback({ skill: "greet", output_id: output, kind: "edit", final_text: "Hi Ada" });
  const outcome = rlaas.taskResult({ skill: "greet", interaction_id: interaction, name: "resolved", value: true });
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches).toEqual([[interaction, output, feedback, outcome]]);
  const [request] = service.received;
  expect(request?.headers.authorization).toBe(`Bearer ${KEY}`);
  expect(request?.body.events.map(({ type }) => type)).toEqual(["interaction", "output", "feedback", "task_result"]);
  for (const event of request?.body.events ?? []) expect(event.occurred_at).toMatch(/^\d{4}-.*Z$/);
  expect(rlaas.stats()).toMatchObject({ accepted: 4, acknowledged: 4, waiting: 0, dropped: {} });
});

test("events are sent in the background", async () => {
  const id = rate(client({ flushIntervalMs: 1 }), 1);
  await service.until(() => service.stored.has(id));
});

test("a hundred events that wait are sent without waiting for more", async () => {
  const rlaas = client();
  for (let number = 0; number < 100; number++) rate(rlaas, number / 100);
  await service.until(() => service.stored.size === 100);
});

test("ids are bound to their interaction, and only the first output of one made here has its bare ULID", () => {
  const rlaas = client();
  const tailed = (prefix: string, id: string): RegExp =>
    new RegExp(`^${prefix}_${id.slice(4)}_[0-9A-HJKMNP-TV-Z]{10}$`);
  const id = rlaas.logInteraction({ skill: "greet", inputs: {} });
  expect(id).toMatch(/^int_[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
  const about = { skill: "greet", interaction_id: id };
  const first = rlaas.logOutput({ ...about, text: "a" });
  expect(first).toBe(`out_${id.slice(4)}`);
  expect(rlaas.logOutput({ ...about, text: "b" })).toMatch(tailed("out", id));
  expect(rlaas.submitFeedback({ skill: "greet", output_id: first, kind: "label", label: "x" })).toMatch(
    tailed("fbk", id),
  );
  expect(rlaas.taskResult({ ...about, name: "csat", value: 4 })).toMatch(tailed("tsk", id));
  expect(rlaas.logOutput({ ...DRAFT, text: "c" })).toMatch(tailed("out", DRAFT.interaction_id));
  expect(rlaas.logOutput({ skill: "greet", interaction_id: "ticket-7", text: "d" })).toMatch(/^out_[0-9A-Z]{26}$/);
  expect(rlaas.logInteraction({ skill: "greet", interaction_id: "ticket-7", inputs: {} })).toBe("ticket-7");
});

test.each([
  ["500", { status: 500 }],
  ["503", { status: 503, body: error("dependency_unavailable") }],
  ["429", { status: 429, headers: { "Retry-After": "0" } }],
  ["401, for the key may come right", { status: 401, body: error("unauthorized") }],
  ["an answer that is not the service's", { status: 200, body: [] }],
])("after %s the same events are sent again under the same ids", async (_, reply) => {
  service.rules.push(once(reply));
  const rlaas = client();
  const ids = [rate(rlaas, 0), rate(rlaas, 1)];
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches).toEqual([ids, ids]);
  expect(rlaas.stats()).toMatchObject({ acknowledged: 2, failedBatches: 1 });
});

test("an event that arrived although its answer did not is a replay, and counts once", async () => {
  const fetchAndLose: typeof fetch = async (...request) => {
    await fetch(...request);
    throw new TypeError("connection reset");
  };
  const losing = client({ spool: new MapSpool(), fetch: fetchAndLose });
  const id = rate(losing, 1);
  expect(await losing.flush(1)).toBe(false);
  await service.until(() => service.stored.size === 1);
  const spool = new MapSpool();
  const again = client({ spool });
  const body = JSON.parse(JSON.stringify(service.stored.get(id))) as Parameters<Rlaas["submitFeedback"]>[0] & {
    type?: string;
  };
  delete body.type;
  expect(again.submitFeedback(body)).toBe(id);
  await again.flush();
  expect(service.stored.size).toBe(1);
});

test("nothing is sent before Retry-After has passed, not even by flush", async () => {
  service.rules.push(once({ status: 429, headers: { "Retry-After": "3600" } }));
  const rlaas = client();
  rate(rlaas, 1);
  expect(await rlaas.flush(50)).toBe(false);
  expect(await rlaas.flush(50)).toBe(false);
  expect(service.received).toHaveLength(1);
  expect(rlaas.stats().waiting).toBe(1);
});

test("when the service is back, what waited comes in the order submitted", async () => {
  const { port } = service;
  await service.stop();
  const rlaas = client();
  const ids = [1, 2, 3].map((number) => rate(rlaas, 1 / number));
  expect(await rlaas.flush(1)).toBe(false);
  ids.push(rate(rlaas, 0));
  service = await new Service().start(port);
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches.flat()).toEqual(ids);
});

test("a refused event is dropped and counted, the others are stored, and those to be retried are retried", async () => {
  service.rules.push(results(201, 400, 503));
  const rlaas = client();
  const ids = [0, 0.5, 1].map((rating) => rate(rlaas, rating));
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches).toEqual([ids, [ids[2]]]);
  expect(rlaas.stats()).toMatchObject({ acknowledged: 2, dropped: { refused: 1 } });
  expect(lines.join("\n")).toContain("refused (1): 400 x label");
});

test("a body that is refused whole is halved until the event that spoils it stands alone", async () => {
  const spoilt = ({ body }: { body: { events: Record<string, string>[] } }): { status: number } | undefined =>
    body.events.some(({ kind }) => kind === "label") ? { status: 413 } : undefined;
  service.rules.push(spoilt, spoilt, spoilt);
  const rlaas = client();
  const before = [0, 0.5].map((rating) => rate(rlaas, rating));
  rlaas.submitFeedback({ ...DRAFT, kind: "label", label: "x" });
  const after = rate(rlaas, 1);
  expect(await rlaas.flush()).toBe(true);
  expect([...service.stored.keys()]).toEqual([...before, after]);
  expect(rlaas.stats().dropped).toEqual({ refused: 1 });
});

test("more than 500 events are several batches", async () => {
  const rlaas = client({ spool: null, apiKey: KEY.replace("rlp_", "rlk_") });
  const ids = Array.from({ length: 1100 }, () => rate(rlaas, 1));
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches.map(({ length }) => length)).toEqual([500, 500, 100]);
  expect(service.batches.flat()).toEqual(ids);
});

test("a page sends 25 events at a time", async () => {
  const rlaas = client({ spool: null });
  const ids = Array.from({ length: 60 }, () => rate(rlaas, 1));
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches.map(({ length }) => length)).toEqual([25, 25, 10]);
  expect(service.batches.flat()).toEqual(ids);
});

test("what does not fit is dropped and counted, what is too old too", async () => {
  const small = client({ maxBytes: 500 });
  const ids = [1, 2, 3, 4].map((number) => rate(small, 1 / number));
  await small.flush();
  expect([...service.stored.keys()]).toEqual(ids.slice(0, 2));
  expect(small.stats().dropped).toEqual({ spool_full: 2 });
  const spool = new MapSpool();
  spool.put([{ key: "1", owner: "anyone", at: Date.now() - 2 * HOUR_MS, body: "{}" }]);
  const old = client({ spool, maxAgeMs: HOUR_MS });
  await old.flush();
  expect(old.stats().dropped).toEqual({ too_old: 1 });
  expect(spool.entries.size).toBe(0);
});

test("the next client on a spool sends what the last one left, before its own, but nothing of another key", async () => {
  const spool = new MapSpool();
  const offline: typeof fetch = () => Promise.reject(new TypeError("offline"));
  const left = rate(client({ spool, fetch: offline }), 1);
  rate(client({ spool, fetch: offline, apiKey: KEY.replace("jd", "je") }), 0);
  for (const now = Date.now(); Date.now() === now;); // within one millisecond two clients are in no order
  const rlaas = client({ spool });
  const own = rate(rlaas, 0.5);
  expect(await rlaas.flush()).toBe(true);
  expect(service.batches).toEqual([[left, own]]);
  expect(spool.entries.size).toBe(1);
});

test("an event that another client on the spool delivered is not sent again", async () => {
  const spool = new MapSpool();
  let offline = true;
  const one = client({
    spool,
    fetch: (...request) => (offline ? Promise.reject(new Error("offline")) : fetch(...request)),
  });
  rate(one, 1);
  expect(await one.flush(1)).toBe(false);
  expect(await client({ spool }).flush()).toBe(true);
  offline = false;
  expect(await one.flush()).toBe(true);
  expect(service.received).toHaveLength(1);
});

test("where the spool fails events wait in memory and arrive", async () => {
  const broken = (): never => {
    throw new Error("quota exceeded");
  };
  const rlaas = client({ spool: { put: broken, list: broken, delete: broken } });
  const id = rate(rlaas, 1);
  expect(await rlaas.flush()).toBe(true);
  expect(service.stored.has(id)).toBe(true);
  expect(lines.join("\n")).toContain("the spool cannot be written");
  const closed = client({ spool: Promise.reject(new Error("no")) });
  rate(closed, 0);
  expect(await closed.flush()).toBe(true);
});

test("a spool that never opens or never answers holds nothing up: events arrive from memory", async () => {
  const never = new Promise<never>(() => undefined);
  const silent = { put: () => never, list: () => never, delete: () => never };
  vi.useFakeTimers();
  try {
    for (const spool of [never, silent]) {
      const rlaas = client({ spool, fetch: () => Promise.resolve(Response.json({ results: [{ status: 201 }] })) });
      rate(rlaas, 1);
      const flushed = rlaas.flush();
      await vi.advanceTimersByTimeAsync(10_000);
      expect(await flushed).toBe(true);
    }
  } finally {
    vi.useRealTimers();
  }
});

test("clients on one spool take turns by Web Locks, and go on where there are none to be had", async () => {
  const lockNames: string[] = [];
  const request = (name: string, _: unknown, work: () => Promise<void>): Promise<void> => {
    lockNames.push(name);
    return lockNames.length === 1 ? work() : Promise.reject(new DOMException("the page is sandboxed", "SecurityError"));
  };
  vi.stubGlobal("navigator", { locks: { request } });
  try {
    const rlaas = client({ spool: new MapSpool(), owner: "app" });
    for (const rating of [0, 1]) {
      rate(rlaas, rating);
      expect(await rlaas.flush()).toBe(true);
    }
    expect(lockNames).toEqual(["rlaas app", "rlaas app"]);
    expect(service.batches.map(({ length }) => length)).toEqual([1, 1]);
  } finally {
    vi.unstubAllGlobals();
  }
});

test("whatever the host passes in, nothing is thrown, and the loss is counted and logged without its text", async () => {
  const rlaas = client({
    log: (line) => {
      lines.push(line);
      throw new Error("the host's logger fails");
    },
  });
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  for (const bad of [
    undefined,
    {},
    { skill: "Not A Skill" },
    { ...DRAFT, metadata: circular },
    { ...DRAFT, feedback_id: "ü" },
  ]) {
    rlaas.submitFeedback(bad as never);
  }
  rlaas.submitFeedback({ ...DRAFT, kind: "comment", comment: "ü".repeat(140_000) });
  expect(await rlaas.flush()).toBe(true);
  expect(service.received).toEqual([]);
  expect(rlaas.stats().dropped).toEqual({ invalid: 6 });
  expect(lines.join("\n")).not.toContain("üüü");
});

test("an event whose time is given as none has the time it was submitted, however long it waits", async () => {
  const rlaas = client();
  rlaas.submitFeedback({ ...DRAFT, kind: "rating", rating: 1, occurred_at: null });
  rlaas.submitFeedback({ ...DRAFT, kind: "rating", rating: 1, occurred_at: undefined } as never);
  await rlaas.flush();
  expect(service.stored.size).toBe(2);
  for (const event of service.stored.values()) expect(event.occurred_at).toMatch(/^\d{4}-.*Z$/);
});

test("a client without an address or key throws nothing and counts what it cannot send", async () => {
  const rlaas = client({ apiUrl: undefined as never, apiKey: "nonsense" });
  rate(rlaas, 1);
  expect(await rlaas.infer({ skill: "greet", inputs: {} })).toBeNull();
  expect(rlaas.stats().dropped).toEqual({ not_configured: 1 });
});

test("a strict client throws what is otherwise counted", async () => {
  expect(() => client({ strict: true, apiKey: "nonsense" })).toThrow(RlaasError);
  const rlaas = client({ strict: true, maxBytes: 500 });
  expect(() => rate(rlaas, Number.NaN)).not.toThrow(); // the service's to judge
  expect(() => rlaas.submitFeedback({ ...DRAFT, skill: "Not A Skill", kind: "rating", rating: 1 })).toThrow("skill");
  rate(rlaas, 1);
  expect(() => rate(rlaas, 1)).toThrow(expect.objectContaining({ code: "spool_full" }));
  service.rules.push(results(400, 201));
  await expect(rlaas.flush()).rejects.toThrow("refused 1");
  await expect(rlaas.flush()).resolves.toBe(true);
  service.rules.push(once({ status: 503, headers: { "Retry-After": "60" } }));
  rate(rlaas, 1);
  await expect(rlaas.flush(50)).rejects.toThrow(expect.objectContaining({ code: "undelivered" }));
});

test("a closed client that is used again sends again", async () => {
  const rlaas = client({ flushIntervalMs: 1 });
  expect(await rlaas.close()).toBe(true);
  const id = rate(rlaas, 1);
  await service.until(() => service.stored.has(id));
});
