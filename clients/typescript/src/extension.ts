/**
 * For browser extensions (Manifest V3): a spool in `chrome.storage.local`, which the service worker, popups and content
 * scripts share.
 */
import { inOrder, isEntry, type Entry, type Spool } from "./spool.js";

/** The part of `chrome.storage.StorageArea` that is used. */
export interface StorageArea {
  get(keys: null): Promise<Record<string, unknown>>;
  set(items: Record<string, unknown>): Promise<void>;
  remove(keys: string[]): Promise<void>;
}

declare const chrome: { storage: { local: StorageArea } };

/** A spool in an extension's storage area; needs the permission `storage`. */
export function extensionSpool(area: StorageArea = chrome.storage.local, name = "rlaas"): Spool {
  const prefix = `${name}:`;
  return {
    put: (entries) => area.set(Object.fromEntries(entries.map((entry) => [prefix + entry.key, entry]))),
    async list() {
      const items = Object.entries(await area.get(null));
      const entries: Entry[] = items.flatMap(([item, held]) =>
        item.startsWith(prefix) && isEntry(held) ? [held] : [],
      );
      return inOrder(entries);
    },
    delete: (keys) => area.remove(keys.map((key) => prefix + key)),
  };
}
