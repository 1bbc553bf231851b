/** Where events wait, as well as in memory, until the service has acknowledged them. */

/** One event as a spool stores it. */
export interface Entry {
  /** Keys sort in the order in which the events were submitted. */
  key: string;
  /** The owner's name: only a client with the same owner sends the event. */
  owner: string;
  /** When it was submitted, in milliseconds since 1970. */
  at: number;
  /** The event's JSON with its ids; it never changes. */
  body: string;
}

/**
 * A store of events that outlives the page or the process. May throw or reject: the events then wait in memory alone.
 */
export interface Spool {
  put(entries: readonly Entry[]): void | Promise<void>;
  /** All entries, of every owner, oldest first. */
  list(): Entry[] | Promise<Entry[]>;
  delete(keys: readonly string[]): void | Promise<void>;
}

/** Sort `entries`, in place, in the order in which they were submitted. */
export function sortEntries<E extends Entry>(entries: E[]): E[] {
  return entries.sort((one, other) => (one.key < other.key ? -1 : 1));
}

/** Whether a value read from a store is an entry. */
export function isEntry(value: unknown): value is Entry {
  const entry = value as Partial<Entry> | null | undefined;
  return (
    typeof entry?.key === "string" &&
    typeof entry.owner === "string" &&
    typeof entry.at === "number" &&
    typeof entry.body === "string"
  );
}
