/**
 * From the host's call to the service: a bounded queue in memory, a copy of it in the spool, and batches sent from it
 * in order.
 *
 * The spool may be shared (tabs, processes): whoever sends takes in what others left behind. With Web Locks one of them
 * sends at a time; without, two may send the same event, and its id makes the second delivery a replay.
 */
import { ulid } from "./ids.js";
import { inOrder, type Entry, type Spool } from "./spool.js";
import { jitteredMs, postBatch, type Outcome, type Wire } from "./transport.js";

const BATCH = { events: 500, bytes: 5 * 1024 * 1024 - 64 };
/** What the service takes of a publishable key at a time. */
const PAGE_BATCH = { events: 25, bytes: 512 * 1024 - 64 };
/** So many events waiting are sent without waiting for more. */
const EAGER_AT_EVENTS = 100;
/** Browsers let a page have 64 KiB of keepalive requests under way. */
const KEEPALIVE_BYTES = 60 * 1024;
const LOG_EVERY_MS = 60_000;
/** A spool that takes longer is done without: some browsers leave IndexedDB's questions unanswered. */
const SPOOL_MS = 2000;
/** So long a page waits for its turn, which a page that was put to sleep may hold. */
const TURN_MS = 30_000;

/** Why an event was lost. */
export type Loss = "spool_full" | "too_old" | "refused" | "invalid" | "not_configured";

/**
 * What became of the events since the client was made; events that others left in the spool and this one sent are
 * included.
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

interface Held extends Entry {
  bytes: number;
  saved: boolean;
}

export class Delivery {
  private queue = new Map<string, Held>();
  private bytes = 0;
  private spool: Spool | null = null;
  private readonly opened: Promise<void>;
  private readonly owner: string;
  private readonly most: typeof BATCH;
  private readonly client = ulid();
  private lastAt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wakesAt = Infinity;
  private running: Promise<void> | undefined;
  private readonly leaving = new Set<string>();
  private failures = 0;
  private retryAt = 0;
  private closedUntil = 0;
  private closed = false;
  private accepted = 0;
  private acknowledged = 0;
  private failedBatches = 0;
  private readonly dropped: Partial<Record<Loss, number>> = {};
  private readonly noted = new Map<string, { at: number; unlogged: number }>();

  constructor(
    private readonly wire: Wire,
    private readonly settings: Settings,
    spool: Spool | Promise<Spool | null> | null,
    private readonly log: (line: string) => void,
  ) {
    this.owner = settings.owner;
    this.most = wire.apiKey.startsWith("rlp_") ? PAGE_BATCH : BATCH;
    if (spool instanceof Promise) {
      this.opened = spool.then(
        (found) => {
          this.spool = found;
          this.save([...this.queue.values()]);
          this.wake(0); // for what an earlier page left
        },
        (error: unknown) => {
          this.note("the spool cannot be opened, events wait in memory", 1, String(error));
        },
      );
    } else {
      this.spool = spool;
      this.opened = Promise.resolve();
      if (spool) this.wake(0);
    }
  }

  /** Take an event's JSON; whether there was room. It is in the spool, or on its way there, when this returns. */
  submit(body: string, bytes: number): boolean {
    if (this.bytes + bytes > this.settings.maxBytes) {
      this.drop("spool_full");
      return false;
    }
    this.closed = false;
    this.lastAt = Math.max(this.lastAt, Date.now()); // clocks are set back
    const key = `${padded(this.lastAt, 15)}-${padded(this.accepted, 9)}-${this.client}`;
    const held: Held = { key, owner: this.owner, at: this.lastAt, body, bytes, saved: false };
    this.hold(held);
    this.accepted++;
    this.save([held]);
    this.wake(this.queue.size >= EAGER_AT_EVENTS ? 0 : this.settings.flushIntervalMs);
    return true;
  }

  /**
   * Deliver what waits, for at most `timeoutMs`; whether nothing waits any more. Ends a backoff, except one that the
   * service asked for.
   */
  async flush(timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    this.retryAt = 0;
    do {
      await until(deadline, this.run());
      if (!this.queue.size) return true;
      await until(Math.min(deadline, Math.max(this.retryAt, this.closedUntil)));
    } while (Date.now() < deadline);
    return false;
  }

  /**
   * Send what fits one keepalive request, now: the page may be gone in a moment. It stays in the spool until the answer
   * is seen.
   */
  leave(): void {
    const batch: Held[] = [];
    let bytes = 0;
    for (const key of this.leaving) bytes += this.queue.get(key)?.bytes ?? 0;
    for (const held of this.queue.values()) {
      if (this.leaving.has(held.key) || bytes + held.bytes + 1 > KEEPALIVE_BYTES) continue;
      if (batch.length === this.most.events) break;
      bytes += held.bytes + 1;
      batch.push(held);
    }
    if (!batch.length || Date.now() < this.closedUntil) return;
    for (const { key } of batch) this.leaving.add(key);
    void this.post(batch, true).then(async (outcome) => {
      for (const { key } of batch) this.leaving.delete(key);
      if ("verdicts" in outcome) await this.settle(batch, outcome);
    });
  }

  /** Flush, then stop; whether nothing waits any more. An event submitted afterwards is sent as ever. */
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
    const last = this.noted.get(what);
    const total = (last?.unlogged ?? 0) + number;
    if (last && Date.now() - last.at < LOG_EVERY_MS) {
      last.unlogged = total;
      return;
    }
    this.noted.set(what, { at: Date.now(), unlogged: 0 });
    try {
      this.log(`rlaas: ${what} (${total})${detail && `: ${detail}`}`);
    } catch {
      // The host's logger is not worth an exception in the host.
    }
  }

  /** Send in `ms`, or earlier where that was asked for. */
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
    (this.timer as { unref?: () => void }).unref?.(); // Node shall not live on for it
  }

  private run(): Promise<void> {
    this.running ??= soon(this.opened)
      .catch(() => {
        this.note("the spool does not open, events wait in memory", 1, "");
      })
      .then(() => {
        clearTimeout(this.timer); // it would find nothing to do
        this.wakesAt = Infinity;
        return this.alone(() => this.drain());
      })
      .catch((error: unknown) => {
        this.note("sending failed", 1, String(error));
        this.backOff(0);
      })
      .finally(() => {
        this.running = undefined;
        if (this.queue.size) this.wake(this.settings.flushIntervalMs);
      });
    return this.running;
  }

  private async alone(work: () => Promise<void>): Promise<void> {
    const locks = (globalThis.navigator as Partial<Navigator> | undefined)?.locks;
    if (!this.spool || !locks) return work();
    let begun: Promise<void> | undefined;
    const turn = { signal: AbortSignal.timeout(TURN_MS) };
    await locks.request(`rlaas ${this.owner}`, turn, () => (begun = work())).catch(() => begun ?? work());
  }

  private async drain(): Promise<void> {
    await this.takeIn();
    while (this.queue.size && Date.now() >= Math.max(this.retryAt, this.closedUntil)) {
      const batch: Held[] = [];
      let bytes = 0;
      for (const held of this.queue.values()) {
        if (batch.length === this.most.events || bytes + held.bytes + 1 > this.most.bytes) break;
        bytes += held.bytes + 1;
        batch.push(held);
      }
      await this.send(batch);
    }
  }

  /**
   * Make the queue what the spool says: with what others left behind, without what others delivered, and without what
   * is too old.
   */
  private async takeIn(): Promise<void> {
    const oldest = Date.now() - this.settings.maxAgeMs;
    const gone: Entry[] = [...this.queue.values()].filter(({ at }) => at < oldest);
    if (this.spool) {
      try {
        const mine = [...this.queue.values()].filter(({ saved }) => saved);
        const listed = await soon(this.spool.list());
        const keys = new Set(listed.map(({ key }) => key));
        this.forget(mine.filter(({ key }) => !keys.has(key)));
        const others = listed.filter(({ key }) => !this.queue.has(key));
        gone.push(...others.filter(({ at }) => at < oldest));
        const adopted = others.filter(({ owner, at }) => owner === this.owner && at >= oldest);
        for (const entry of adopted) this.hold({ ...entry, bytes: utf8Bytes(entry.body), saved: true });
        if (adopted.length) this.queue = new Map(inOrder([...this.queue.values()]).map((held) => [held.key, held]));
      } catch (error) {
        this.note("the spool cannot be read", 1, String(error));
      }
    }
    if (gone.length) {
      await this.remove(gone);
      this.drop("too_old", gone.length);
    }
  }

  private async send(batch: Held[]): Promise<void> {
    const outcome = await this.post(batch);
    if ("verdicts" in outcome) return this.settle(batch, outcome);
    if ("failed" in outcome) {
      this.again(outcome.failed, outcome.retryAfterMs);
    } else if (batch.length > 1) {
      // One of them spoils the batch: halves find it.
      const half = batch.length >> 1;
      await this.send(batch.slice(0, half));
      if (Date.now() >= Math.max(this.retryAt, this.closedUntil)) await this.send(batch.slice(half));
    } else {
      await this.settle(batch, { verdicts: [outcome.notABatch], retryAfterMs: 0 });
    }
  }

  private post(batch: Held[], keepalive = false): Promise<Outcome> {
    const bodies = batch.map(({ body }) => body);
    return postBatch(this.wire, bodies, this.settings.timeoutMs, keepalive);
  }

  private async settle(
    batch: Held[],
    { verdicts, retryAfterMs }: Extract<Outcome, { verdicts: unknown }>,
  ): Promise<void> {
    // Another request may have settled some of them meanwhile.
    const done = batch.filter(({ key }, index) => verdicts[index] !== null && this.queue.has(key));
    const refused = batch.flatMap(({ key }, index) => {
      const verdict = verdicts[index];
      return typeof verdict === "string" && this.queue.has(key) ? [verdict] : [];
    });
    this.acknowledged += done.length - refused.length;
    if (refused.length) this.drop("refused", refused.length, refused[0]);
    const removed = this.remove(done);
    if (verdicts.includes(null)) {
      this.again("the service could not take some events yet", retryAfterMs);
    } else {
      this.failures = 0;
    }
    await removed;
  }

  private again(why: string, askedMs: number): void {
    this.failedBatches++;
    this.note("a batch has to be sent again", 1, why);
    this.backOff(askedMs);
  }

  private backOff(askedMs: number): void {
    const now = Date.now();
    this.closedUntil = now + askedMs;
    this.retryAt = this.closedUntil + jitteredMs(++this.failures);
  }

  private hold(held: Held): void {
    this.queue.set(held.key, held);
    this.bytes += held.bytes;
  }

  private forget(entries: readonly { key: string }[]): void {
    for (const { key } of entries) {
      this.bytes -= this.queue.get(key)?.bytes ?? 0;
      this.queue.delete(key);
    }
  }

  private async remove(entries: readonly Entry[]): Promise<void> {
    this.forget(entries);
    try {
      await soon(this.spool?.delete(entries.map(({ key }) => key)));
    } catch (error) {
      this.note("the spool cannot be written, delivered events may be sent again", entries.length, String(error));
    }
  }

  private save(entries: Held[]): void {
    const { spool } = this;
    if (!spool || !entries.length) return;
    const saving = async (): Promise<void> => {
      try {
        await spool.put(entries.map(({ key, owner, at, body }) => ({ key, owner, at, body })));
        for (const held of entries) held.saved = true;
      } catch (error) {
        this.note("the spool cannot be written, events wait in memory", entries.length, String(error));
      }
    };
    void saving();
  }
}

function padded(number: number, digits: number): string {
  return String(number).padStart(digits, "0");
}

/** The length of a text in UTF-8. */
export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** What the spool answers; rejects where that takes it too long. */
async function soon<T>(answer: T | Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error("it does not answer"));
    }, SPOOL_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves at `deadline` (milliseconds since 1970), or when `first` has settled. */
async function until(deadline: number, first?: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, deadline - Date.now()));
  });
  await Promise.race(first ? [first, late] : [late]);
  clearTimeout(timer);
}
