/** The browser's spools: IndexedDB, else localStorage. */
import { isEntry, sortEntries, type Entry, type Spool } from "./spool.js";

const STORE = "events";

/** The part of `Storage` that is used. */
export interface WebStorage {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/**
 * A spool in the IndexedDB database `name`. Rejects where the browser has no IndexedDB or refuses it, as some private
 * modes do.
 */
export async function indexedDbSpool(name = "rlaas"): Promise<Spool> {
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "key" });
  const database = await new Promise<IDBDatabase>((resolve, reject) => {
    opening.onsuccess = () => {
      resolve(opening.result);
    };
    opening.onerror = opening.onblocked = () => {
      reject(opening.error ?? new Error("IndexedDB is blocked"));
    };
  });
  database.onversionchange = () => {
    database.close();
  };

  function run<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T> | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => {
        resolve(request?.result as T);
      };
      transaction.onabort = transaction.onerror = () => {
        reject(transaction.error ?? new Error("IndexedDB failed"));
      };
    });
  }

  return {
    put: (entries) =>
      run<undefined>("readwrite", (store) => {
        for (const { key, owner, at, body } of entries) store.put({ key, owner, at, body });
        return undefined;
      }),
    list: () => run<Entry[]>("readonly", (store) => store.getAll()),
    delete: (keys) =>
      run<undefined>("readwrite", (store) => {
        for (const key of keys) store.delete(key);
        return undefined;
      }),
  };
}

/** A spool in a Web Storage area, with one item for each event, written before the call that submits the event returns. */
export function localStorageSpool(name = "rlaas", storage: WebStorage = localStorage): Spool {
  const prefix = `${name}:`;
  return {
    put(entries) {
      for (const { key, owner, at, body } of entries) {
        storage.setItem(prefix + key, JSON.stringify({ key, owner, at, body }));
      }
    },
    list() {
      const entries: Entry[] = [];
      for (let index = 0; index < storage.length; index++) {
        const name = storage.key(index);
        if (!name?.startsWith(prefix)) continue;
        try {
          const entry: unknown = JSON.parse(storage.getItem(name) ?? "null");
          if (isEntry(entry)) entries.push(entry);
        } catch {
          // An item of another program, or one cut short: it stays as it is.
        }
      }
      return sortEntries(entries);
    },
    delete(keys) {
      for (const key of keys) storage.removeItem(prefix + key);
    },
  };
}

/** The most durable spool that this environment has: IndexedDB, else localStorage, else null (as in Node). */
export async function browserSpool(name = "rlaas"): Promise<Spool | null> {
  try {
    return await indexedDbSpool(name);
  } catch {
    try {
      const spool = localStorageSpool(name, window.localStorage);
      await spool.list();
      return spool;
    } catch {
      return null;
    }
  }
}
