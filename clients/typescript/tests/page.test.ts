// @vitest-environment jsdom
import "fake-indexeddb/auto";

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { indexedDbSpool, Rlaas, type Options, type Spool } from "../src/index.js";
import { KEY } from "./service.js";

const DRAFT = { skill: "greet", interaction_id: "int_1", kind: "comment" } as const;

/** Requests of the page, answered by hand: jsdom cannot fetch. */
interface Sent {
  init: RequestInit;
  events: { comment: string }[];
  answer: (status: number) => void;
}
let sent: Sent[];
let pages: Rlaas[];
let database = 0;
beforeEach(() => {
  sent = [];
  pages = [];
  database++;
});
afterEach(async () => {
  for (const { answer } of sent) answer(503);
  await Promise.all(pages.map((rlaas) => rlaas.close(0)));
});

function spool(): Promise<Spool> {
  return indexedDbSpool(`pages-${database}`);
}

/** A page that has loaded. */
async function page(options: Partial<Options> = {}): Promise<Rlaas> {
  const ours = sent;
  const rlaas = new Rlaas({
    apiUrl: "http://rlaas.test",
    apiKey: KEY,
    flushIntervalMs: 3_600_000,
    log: () => undefined,
    fetch: (_, init = {}) =>
      new Promise((resolve) => {
        const { events } = JSON.parse(init.body as string) as Pick<Sent, "events">;
        const answer = (status: number): void => {
          resolve(Response.json({ results: events.map(() => ({ status: 201 })) }, { status }));
        };
        ours.push({ init, events, answer });
      }),
    spool: spool(),
    ...options,
  });
  pages.push(rlaas);
  await rlaas.flush(1000);
  return rlaas;
}

function hide(): void {
  Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  window.dispatchEvent(new Event("pagehide"));
}

test("when the page is hidden what waits goes out at once by a keepalive request, and once only", async () => {
  const rlaas = await page();
  rlaas.submitFeedback({ ...DRAFT, comment: "a" });
  rlaas.submitFeedback({ ...DRAFT, comment: "b" });
  hide();
  expect(sent.map(({ init, events }) => [init.keepalive, events.map(({ comment }) => comment)])).toEqual([
    [true, ["a", "b"]],
  ]);
  expect(new Headers(sent[0]?.init.headers).get("Authorization")).toBe(`Bearer ${KEY}`);
  sent[0]?.answer(200);
  await vi.waitFor(() => {
    expect(rlaas.stats()).toMatchObject({ acknowledged: 2, waiting: 0 });
  });
  await vi.waitFor(async () => {
    expect(await (await spool()).list()).toEqual([]);
  });
});

test("what the last request of a page did not bring is sent by the next page", async () => {
  const rlaas = await page();
  rlaas.submitFeedback({ ...DRAFT, comment: "a" });
  hide(); // and no answer is ever seen
  await vi.waitFor(async () => {
    expect(await (await spool()).list()).toHaveLength(1);
  });
  const loading = page();
  await vi.waitFor(() => {
    expect(sent).toHaveLength(2);
  });
  expect(sent[1]?.events).toEqual(sent[0]?.events);
  sent[1]?.answer(200);
  await loading;
  await vi.waitFor(async () => {
    expect(await (await spool()).list()).toEqual([]);
  });
});

test("the last request stays below what browsers let through, and the rest stays in the spool", async () => {
  const rlaas = await page();
  for (const letter of ["a", "b", "c"]) rlaas.submitFeedback({ ...DRAFT, comment: letter.repeat(25_000) });
  hide();
  expect(sent).toHaveLength(1);
  expect((sent[0]?.init.body as string).length).toBeLessThan(64 * 1024);
  expect(sent[0]?.events).toHaveLength(2);
  await vi.waitFor(async () => {
    expect(await (await spool()).list()).toHaveLength(3);
  });
});

test("a page that is back online sends", async () => {
  const rlaas = await page();
  rlaas.submitFeedback({ ...DRAFT, comment: "a" });
  window.dispatchEvent(new Event("online"));
  await vi.waitFor(() => {
    expect(sent).toHaveLength(1);
  });
});

test("a secret key in a worker, an extension's too, is not used", () => {
  vi.stubGlobal("document", undefined);
  try {
    const rlaas = new Rlaas({ apiUrl: "http://rlaas.test", apiKey: KEY.replace("rlp", "rlk"), log: () => undefined });
    rlaas.submitFeedback({ ...DRAFT, comment: "a" });
    expect(rlaas.stats().dropped).toEqual({ not_configured: 1 });
  } finally {
    vi.unstubAllGlobals();
  }
});

test("a secret key in a page is not used", async () => {
  const rlaas = await page({ apiKey: KEY.replace("rlp", "rlk") });
  rlaas.submitFeedback({ ...DRAFT, comment: "a" });
  hide();
  expect(await rlaas.infer({ skill: "greet", inputs: {} })).toBeNull();
  expect(sent).toEqual([]);
  expect(rlaas.stats().dropped).toEqual({ not_configured: 1 });
  await expect(page({ strict: true, apiKey: KEY.replace("rlp", "rlk") })).rejects.toThrow("must not be in a page");
});
