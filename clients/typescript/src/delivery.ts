/**
 * From the host's call to the service: a bounded queue in memory, a copy of it in the spool, and batches sent from it
 * in order.
 *
 * Tabs or processes may share the spool: a client that sends also sends what others left in it. With Web Locks one
 * client sends at a time; without them two may send the same event, and its id makes the second delivery a replay.
 */
import { ulid } from "./ids.js";
import { sortEntries, type Entry, type Spool } from "./spool.js";
import { drawBackoffMs, postBatch, type Outcome, type Wire } from "./transport.js";

const BATCH = { events: 500, bytes: 4 * 1024 * 1024 - 64 };
/** What the service takes from a publishable key at a time. */
const PAGE_BATCH = { events: 25, bytes: 512 * 1024 - 64 };
/** When so many events wait, they are sent without waiting for more. */
const EAGER_AT_EVENTS = 100;
/** Below the 64 KiB of keepalive requests that browsers let a page have under way. */
const KEEPALIVE_BYTES = 60 * 1024;
const LOG_EVERY_MS = 60_000;
/** How long a spool may take; after that the client goes on without it. Some browsers never answer IndexedDB requests. */
const SPOOL_MS = 2000;
/** How long a page waits for the lock: a page that the browser has put to sleep may hold it. */
const TURN_MS = 30_000;

/** Why an event was lost. */
export type Loss = "spool_full" | "too_old" | "refused" | "invalid" | "not_configured";

/**
 * What became of the events since the client was made, including events that others left in the spool and this client
 * sent.
 */
export interface Stats {
  /** Events that the client took. */
  accepted: number;
  /** Events that the service has, replays included. */
  acknowledged: number;
  /** Events that wait to be sent, in memory and, where there is one, in the spool. */
  waiting: number;
  /** Batches that had to be sent again. */
  failedBatches: number;
  /** Events lost, by reason. */
  dropped: Partial<Record<Loss, number>>;
}

export interface Settings {
  owner: string;
  maxBytes: number;
  maxAgeMs: number;
  flushIntervalMs: number;
  timeoutMs: number;
}

interface QueuedEntry extends Entry {
  bytes: number;
  saved: boolean;
}

export class Delivery {
  private queue = new Map<string, QueuedEntry>();
  private bytes = 0;
  private spool: Spool | null = null;
  private readonly spoolReady: Promise<void>;
  private readonly owner: string;
  private readonly batchLimits: typeof BATCH;
  private readonly client = ulid();
  private lastAt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wakesAt = Infinity;
  private currentRun: Promise<void> | undefined;
  private readonly leavingKeys = new Set<string>();
  private failures = 0;
  private retryAt = 0;
  private closedUntil = 0;
  private closed = false;
  private accepted = 0;
  private acknowledged = 0;
  private failedBatches = 0;
  private readonly dropped: Partial<Record<Loss, number>> = {};
  private readonly troubles = new Map<string, { at: number; unlogged: number }>();

  constructor(
    private readonly wire: Wire,
    private readonly settings: Settings,
    spool: Spool | Promise<Spool | null> | null,
    private readonly log: (line: string) => void,
  ) {
    this.owner = settings.owner;
    this.batchLimits = wire.apiKey.startsWith("rlp_") ? PAGE_BATCH : BATCH;
    if (spool instanceof Promise) {
      this.spoolReady = spool.then(
        (openSpool) => {
          this.spool = openSpool;
          this.save([...this.queue.values()]);
          this.wake(0); // to send what an earlier page left
        },
        (error: unknown) => {
          this.note("the spool cannot be opened, events wait in memory", 1, String(error));
        },
      );
    } else {
      this.spool = spool;
      this.spoolReady = Promise.resolve();
      if (spool) this.wake(0);
    }
  }

  /**
   * Queue an event's JSON; returns false where there is no space for it. When this returns, the event is in the spool
   * or on its way there.
   */
  submit(body: string, bytes: number): boolean {
    if (this.bytes + bytes > this.settings.maxBytes) {
      this.drop("spool_full");
      return false;
    }
    this.closed = false;
    this.lastAt = Math.max(this.lastAt, Date.now()); // a clock may be set back
    const key = `${padNumber(this.lastAt, 15)}-${padNumber(this.accepted, 9)}-${this.client}`;
    const entry: QueuedEntry = { key, owner: this.owner, at: this.lastAt, body, bytes, saved: false };
    this.enqueue(entry);
    this.accepted++;
    this.save([entry]);
    this.wake(this.queue.size >= EAGER_AT_EVENTS ? 0 : this.settings.flushIntervalMs);
    return true;
  }

  /**
   * Deliver what waits, for at most `timeoutMs`; returns whether nothing waits any more. Ends a backoff, except one that
   * the service asked for.
   */
  async flush(timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    this.retryAt = 0;
    do {
      await waitUntil(deadline, this.run());
      if (!this.queue.size) return true;
      await waitUntil(Math.min(deadline, Math.max(this.retryAt, this.closedUntil)));
    } while (Date.now() < deadline);
    return false;
  }

  /**
   * Send now what fits into one keepalive request: the page may be gone in a moment. The events stay in the spool until
   * the answer comes.
   */
  leave(): void {
    const batch: QueuedEntry[] = [];
    let bytes = 0;
    for (const key of this.leavingKeys) bytes += this.queue.get(key)?.bytes ?? 0;
    for (const entry of this.queue.values()) {
      if (this.leavingKeys.has(entry.key) || bytes + entry.bytes + 1 > KEEPALIVE_BYTES) continue;
      if (batch.length === this.batchLimits.events) break;
      bytes += entry.bytes + 1;
      batch.push(entry);
    }
    if (!batch.length || Date.now() < this.closedUntil) return;
    for (const { key } of batch) this.leavingKeys.add(key);
    void this.post(batch, true).then(async (outcome) => {
      for (const { key } of batch) this.leavingKeys.delete(key);
      if ("verdicts" in outcome) await this.settle(batch, outcome);
    });
  }

  /** Flush, then stop; returns whether nothing waits any more. A later event makes the client send again. */
  async close(timeoutMs: number): Promise<boolean> {
    const delivered = await this.flush(timeoutMs);
    this.closed = true;
    clearTimeout(this.timer);
    this.wakesAt = Infinity;
    return delivered;
  }

  stats(): Stats {
    return {
      accepted: this.accepted,
      acknowledged: this.acknowledged,
      waiting: this.queue.size,
      failedBatches: this.failedBatches,
      dropped: { ...this.dropped },
    };
  }

  /** Count lost events. */
  drop(reason: Loss, number = 1, detail = ""): void {
    this.dropped[reason] = (this.dropped[reason] ?? 0) + number;
    this.note(`events dropped, ${reason}`, number, detail);
  }

  /** Log a trouble, at most once a minute for each kind. Ids and reasons only, never an event's text. */
  note(what: string, number: number, detail: string): void {
    const last = this.troubles.get(what);
    const total = (last?.unlogged ?? 0) + number;
    if (last && Date.now() - last.at < LOG_EVERY_MS) {
      last.unlogged = total;
      return;
    }
    this.troubles.set(what, { at: Date.now(), unlogged: 0 });
    try {
      this.log(`rlaas: ${what} (${total})${detail && `: ${detail}`}`);
    } catch {
      // The host's logger is not worth an exception in the host.
    }
  }

  /** Send in `ms` milliseconds, unless the client is to send earlier anyway. */
  wake(ms: number): void {
    const now = Date.now();
    const at = Math.max(now + ms, this.retryAt, this.closedUntil);
    if (this.closed || at >= this.wakesAt) return;
    clearTimeout(this.timer);
    this.wakesAt = at;
    this.timer = setTimeout(() => {
      this.wakesAt = Infinity;
      void this.run();
    }, at - now);
    (this.timer as { unref?: () => void }).unref?.(); // so that the timer does not keep Node alive
  }

  private run(): Promise<void> {
    this.currentRun ??= withTimeout(this.spoolReady)
      .catch(() => {
        this.note("the spool does not open, events wait in memory", 1, "");
      })
      .then(() => {
        clearTimeout(this.timer); // this run does what the timer was for
        this.wakesAt = Infinity;
        return this.takeTurn(() => this.drain());
      })
      .catch((error: unknown) => {
        this.note("sending failed", 1, String(error));
        this.backOff(0);
      })
      .finally(() => {
        this.currentRun = undefined;
        if (this.queue.size) this.wake(this.settings.flushIntervalMs);
      });
    return this.currentRun;
  }

  private async takeTurn(work: () => Promise<void>): Promise<void> {
    const locks = (globalThis.navigator as Partial<Navigator> | undefined)?.locks;
    if (!this.spool || !locks) return work();
    let result: Promise<void> | undefined;
    const options = { signal: AbortSignal.timeout(TURN_MS) };
    await locks.request(`rlaas ${this.owner}`, options, () => (result = work())).catch(() => result ?? work());
  }

  private async drain(): Promise<void> {
    await this.syncWithSpool();
    while (this.queue.size && Date.now() >= Math.max(this.retryAt, this.closedUntil)) {
      const batch: QueuedEntry[] = [];
      let bytes = 0;
      for (const entry of this.queue.values()) {
        if (batch.length === this.batchLimits.events || bytes + entry.bytes + 1 > this.batchLimits.bytes) break;
        bytes += entry.bytes + 1;
        batch.push(entry);
      }
      await this.send(batch);
    }
  }

  /**
   * Bring the queue in line with the spool: add what others left there, and remove what others delivered and what is too
   * old.
   */
  private async syncWithSpool(): Promise<void> {
    const oldest = Date.now() - this.settings.maxAgeMs;
    const oldEntries: Entry[] = [...this.queue.values()].filter(({ at }) => at < oldest);
    if (this.spool) {
      try {
        const savedEntries = [...this.queue.values()].filter(({ saved }) => saved);
        const spoolEntries = await withTimeout(this.spool.list());
        const keys = new Set(spoolEntries.map(({ key }) => key));
        this.dequeue(savedEntries.filter(({ key }) => !keys.has(key)));
        const others = spoolEntries.filter(({ key }) => !this.queue.has(key));
        oldEntries.push(...others.filter(({ at }) => at < oldest));
        const newEntries = others.filter(({ owner, at }) => owner === this.owner && at >= oldest);
        for (const entry of newEntries) this.enqueue({ ...entry, bytes: utf8Bytes(entry.body), saved: true });
        if (newEntries.length)
          this.queue = new Map(sortEntries([...this.queue.values()]).map((entry) => [entry.key, entry]));
      } catch (error) {
        this.note("the spool cannot be read", 1, String(error));
      }
    }
    if (oldEntries.length) {
      await this.remove(oldEntries);
      this.drop("too_old", oldEntries.length);
    }
  }

  private async send(batch: QueuedEntry[]): Promise<void> {
    const outcome = await this.post(batch);
    if ("verdicts" in outcome) return this.settle(batch, outcome);
    if ("failure" in outcome) {
      this.retry(outcome.failure, outcome.retryAfterMs);
    } else if (batch.length > 1) {
      // One event makes the service refuse the batch: sending halves isolates it.
      const half = batch.length >> 1;
      await this.send(batch.slice(0, half));
      if (Date.now() >= Math.max(this.retryAt, this.closedUntil)) await this.send(batch.slice(half));
    } else {
      await this.settle(batch, { verdicts: [outcome.notABatch], retryAfterMs: 0 });
    }
  }

  private post(batch: QueuedEntry[], keepalive = false): Promise<Outcome> {
    const bodies = batch.map(({ body }) => body);
    return postBatch(this.wire, bodies, this.settings.timeoutMs, keepalive);
  }

  private async settle(
    batch: QueuedEntry[],
    { verdicts, retryAfterMs }: Extract<Outcome, { verdicts: unknown }>,
  ): Promise<void> {
    // Another request may have settled some of them meanwhile.
    const done = batch.filter(({ key }, index) => verdicts[index] !== null && this.queue.has(key));
    const refusals = batch.flatMap(({ key }, index) => {
      const verdict = verdicts[index];
      return typeof verdict === "string" && this.queue.has(key) ? [verdict] : [];
    });
    this.acknowledged += done.length - refusals.length;
    if (refusals.length) this.drop("refused", refusals.length, refusals[0]);
    const removal = this.remove(done);
    if (verdicts.includes(null)) {
      this.retry("the service could not take some events yet", retryAfterMs);
    } else {
      this.failures = 0;
    }
    await removal;
  }

  private retry(why: string, retryAfterMs: number): void {
    this.failedBatches++;
    this.note("a batch has to be sent again", 1, why);
    this.backOff(retryAfterMs);
  }

  private backOff(retryAfterMs: number): void {
    const now = Date.now();
    this.closedUntil = now + retryAfterMs;
    this.retryAt = this.closedUntil + drawBackoffMs(++this.failures);
  }

  private enqueue(entry: QueuedEntry): void {
    this.queue.set(entry.key, entry);
    this.bytes += entry.bytes;
  }

  private dequeue(entries: readonly { key: string }[]): void {
    for (const { key } of entries) {
      this.bytes -= this.queue.get(key)?.bytes ?? 0;
      this.queue.delete(key);
    }
  }

  private async remove(entries: readonly Entry[]): Promise<void> {
    this.dequeue(entries);
    try {
      await withTimeout(this.spool?.delete(entries.map(({ key }) => key)));
    } catch (error) {
      this.note("the spool cannot be written, delivered events may be sent again", entries.length, String(error));
    }
  }

  private save(entries: QueuedEntry[]): void {
    const { spool } = this;
    if (!spool || !entries.length) return;
    const write = async (): Promise<void> => {
      try {
        await spool.put(entries.map(({ key, owner, at, body }) => ({ key, owner, at, body })));
        for (const entry of entries) entry.saved = true;
      } catch (error) {
        this.note("the spool cannot be written, events wait in memory", entries.length, String(error));
      }
    };
    void write();
  }
}

function padNumber(number: number, digits: number): string {
  return String(number).padStart(digits, "0");
}

/** The bytes of a text in UTF-8. */
export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** What the spool answers; rejects where the spool takes longer than `SPOOL_MS`. */
async function withTimeout<T>(answer: T | Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error("it does not answer"));
    }, SPOOL_MS);
  });
  try {
    return await Promise.race([answer, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves at `deadline` (milliseconds since 1970), or earlier when `work` has settled. */
async function waitUntil(deadline: number, work?: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, deadline - Date.now()));
  });
  await Promise.race(work ? [work, timeout] : [timeout]);
  clearTimeout(timer);
}
