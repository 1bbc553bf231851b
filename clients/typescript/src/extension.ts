/**
 * For browser extensions (Manifest V3): a spool in `chrome.storage.local`, which the service worker, popups and content
 * scripts share.
 */
import { isEntry, sortEntries, type Entry, type Spool } from "./spool.js";

/** The part of `chrome.storage.StorageArea` that is used. */
export interface StorageArea {
  get(keys: null): Promise<Record<string, unknown>>;
  set(items: Record<string, unknown>): Promise<void>;
  remove(keys: string[]): Promise<void>;
}

declare const chrome: { storage: { local: StorageArea } };

/** A spool in an extension's storage area. The extension needs the permission `storage`. */
export function extensionSpool(area: StorageArea = chrome.storage.local, name = "rlaas"): Spool {
  const prefix = `${name}:`;
  return {
    put: (entries) => area.set(Object.fromEntries(entries.map((entry) => [prefix + entry.key, entry]))),
    async list() {
      const items = Object.entries(await area.get(null));
      const entries: Entry[] = items.flatMap(([item, value]) =>
        item.startsWith(prefix) && isEntry(value) ? [value] : [],
      );
      return sortEntries(entries);
    },
    delete: (keys) => area.remove(keys.map((key) => prefix + key)),
  };
}
