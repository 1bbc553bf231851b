/** Where events wait, beside memory, until the service has acknowledged them. */

/** One event as a spool holds it. */
export interface Entry {
  /** Sorts in the order the events were submitted. */
  key: string;
  /** Whose it is: only a client with the same address and key sends it. */
  owner: string;
  /** When it was submitted, in milliseconds since 1970. */
  at: number;
  /** The event's JSON, ids and all; never changed again. */
  body: string;
}

/**
 * A store of events that outlives the page or the process. May throw or reject: the events then wait in memory alone.
 */
export interface Spool {
  put(entries: readonly Entry[]): void | Promise<void>;
  /** Everything held, of every owner, oldest first. */
  list(): Entry[] | Promise<Entry[]>;
  delete(keys: readonly string[]): void | Promise<void>;
}

/** Entries sorted as they were submitted. */
export function inOrder<E extends Entry>(entries: E[]): E[] {
  return entries.sort((one, other) => (one.key < other.key ? -1 : 1));
}

/** Whether something that was read back is an entry. */
export function isEntry(value: unknown): value is Entry {
  const entry = value as Partial<Entry> | null | undefined;
  return (
    typeof entry?.key === "string" &&
    typeof entry.owner === "string" &&
    typeof entry.at === "number" &&
    typeof entry.body === "string"
  );
}
