// @vitest-environment jsdom
import "fake-indexeddb/auto";

import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";

import { extensionSpool, type StorageArea } from "../src/extension.js";
import { browserSpool, indexedDbSpool, localStorageSpool, type Entry, type Spool } from "../src/index.js";
import { fileSpool } from "../src/node.js";

/** `chrome.storage.local` as Chrome documents it. */
class Area implements StorageArea {
  private items: Record<string, unknown> = { "the extension's own": 1 };
  get(): Promise<Record<string, unknown>> {
    return Promise.resolve(structuredClone(this.items));
  }
  set(items: Record<string, unknown>): Promise<void> {
    Object.assign(this.items, structuredClone(items));
    return Promise.resolve();
  }
  remove(keys: string[]): Promise<void> {
    this.items = Object.fromEntries(Object.entries(this.items).filter(([key]) => !keys.includes(key)));
    return Promise.resolve();
  }
}

function entry(key: string): Entry {
  return { key, owner: "me", at: 5, body: `{"n":"${key}"}` };
}

const area = new Area();
const directory = mkdtempSync(join(tmpdir(), "rlaas-spool-"));
const reopen: Record<string, () => Spool | Promise<Spool>> = {
  IndexedDB: () => indexedDbSpool("test"),
  localStorage: () => localStorageSpool("test"),
  "chrome.storage.local": () => extensionSpool(area),
  files: () => fileSpool(directory),
};

test.each(Object.entries(reopen))(
  "%s keeps entries, gives them in order, and forgets what is deleted",
  async (_, open) => {
    localStorage.setItem("the page's own", "1");
    localStorage.setItem("test:broken", "{");
    const spool = await open();
    expect(await spool.list()).toEqual([]);
    await spool.put([entry("2"), entry("3")]);
    await spool.put([entry("1")]);
    const again = await open();
    expect(await again.list()).toEqual([entry("1"), entry("2"), entry("3")]);
    await again.delete(["2", "unheard-of"]);
    expect(await spool.list()).toEqual([entry("1"), entry("3")]);
    await spool.delete(["1", "3"]);
    expect(await again.list()).toEqual([]);
    expect(localStorage.getItem("the page's own")).toBe("1");
  },
);

test("the page's spool is IndexedDB, else localStorage, else none", async () => {
  const spool = await browserSpool("a");
  await spool?.put([entry("1")]);
  expect(localStorage.getItem("a:1")).toBeNull();
  vi.stubGlobal("indexedDB", undefined);
  const second = await browserSpool("a");
  await second?.put([entry("1")]);
  expect(localStorage.getItem("a:1")).not.toBeNull();
  vi.spyOn(window, "localStorage", "get").mockImplementation(() => {
    throw new DOMException("denied", "SecurityError");
  });
  expect(await browserSpool("a")).toBeNull();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

test("in an extension chrome.storage.local is the default", async () => {
  vi.stubGlobal("chrome", { storage: { local: new Area() } });
  const spool = extensionSpool();
  await spool.put([entry("1")]);
  expect(await spool.list()).toEqual([entry("1")]);
  vi.unstubAllGlobals();
});

test("a directory that cannot be made does not stop the host: putting and listing fail, and the client goes on in memory", () => {
  const file = join(directory, "a file");
  writeFileSync(file, "");
  const spool = fileSpool(join(file, "spool"));
  expect(() => spool.put([entry("1")])).toThrow();
  expect(() => spool.list()).toThrow();
});

test("what another process put or deleted is seen in a directory that was listed before", async () => {
  const [ours, theirs] = [fileSpool(directory), fileSpool(directory)];
  await ours.put([entry("1"), entry("2")]);
  expect(await ours.list()).toEqual([entry("1"), entry("2")]);
  await theirs.delete(["1"]);
  await theirs.put([entry("3")]);
  expect(await ours.list()).toEqual([entry("2"), entry("3")]);
  await ours.delete(["2", "3"]);
  expect(await theirs.list()).toEqual([]);
});
