import { browserSpool } from "./browser.js";
import { Delivery, utf8Bytes, type Loss, type Stats } from "./delivery.js";
import { boundId, firstOutputId, interactionId } from "./ids.js";
import type { Spool } from "./spool.js";
import {
  describeFailure,
  drawBackoffMs,
  post,
  readAnswer,
  readError,
  readRetryAfterMs,
  RlaasError,
  type Wire,
} from "./transport.js";
import type {
  Answer,
  EventType,
  Feedback,
  FeedbackTokenRequest,
  InferRequest,
  Interaction,
  Output,
  TaskResult,
} from "./types.js";

const MAX_EVENT_BYTES = 256 * 1024;
const INFER_ATTEMPTS = 3;
const REMEMBERED_INTERACTIONS = 1000;
const ID = /^[A-Za-z0-9_-]{1,64}$/;
const SKILL = /^(?=.{1,28}$)[a-z0-9]+(-[a-z0-9]+)*$/;

export interface Options {
  /** The API's address, without `/v1`. */
  apiUrl: string;
  /** `rlk_...` on a server; in a page or an extension a publishable key, `rlp_...`, which anyone may read. */
  apiKey: string;
  /**
   * Throw what otherwise is counted and logged: an event that is invalid or for which there is no space, and a failure
   * of `infer` or `feedbackToken`.
   */
  strict?: boolean;
  /**
   * Where events wait that outlive the page: by default IndexedDB, else localStorage, else nowhere; null for memory
   * alone. For Node see `@rlaas/sdk/node`.
   */
  spool?: Spool | Promise<Spool | null> | null;
  /**
   * The name under which events wait in the spool; by default the address and the key's public part. A name of your own
   * keeps waiting events over a change of key.
   */
  owner?: string;
  /** Bytes of events that may wait; more are dropped and counted. 4 MiB. */
  maxBytes?: number;
  /** How long an event may wait before it is dropped and counted. 7 days. */
  maxAgeMs?: number;
  /** How long events gather before they are sent together. 1 second. */
  flushIntervalMs?: number;
  /** How long a request with events may take. 10 seconds. */
  timeoutMs?: number;
  /** How long `infer` and `feedbackToken` may take, all attempts together. 35 seconds. */
  inferTimeoutMs?: number;
  /** Called with what goes wrong, at most once a minute for each kind. `console.warn`. */
  log?: (line: string) => void;
  /** Used in place of the global `fetch`. */
  fetch?: typeof fetch;
}

/**
 * Asks RLaaS for drafts and reports what became of them.
 *
 * The methods that report an event return its id at once. They never wait, and throw only where `strict`. The event is
 * queued, copied to the spool, and sent in the background until the service has acknowledged it.
 */
export class Rlaas {
  private readonly wire: Wire;
  private readonly delivery: Delivery;
  private readonly strict: boolean;
  private readonly inferTimeoutMs: number;
  /** What is wrong with the options; the client then sends nothing. */
  private readonly mistake: string | undefined;
  private thrownRefusals = 0;
  private readonly withoutOutput = new Set<string>();
  private readonly stopListening: () => void;

  constructor(options: Options) {
    this.strict = options.strict ?? false;
    this.inferTimeoutMs = options.inferTimeoutMs ?? 35_000;
    this.wire = {
      apiUrl: toText(options.apiUrl).trim().replace(/\/+$/, ""),
      apiKey: toText(options.apiKey).trim(),
      fetch: options.fetch ?? ((...request) => fetch(...request)),
    };
    this.mistake = findMistake(this.wire);
    this.delivery = new Delivery(
      this.wire,
      {
        owner: options.owner ?? `${this.wire.apiUrl} ${/^rl[kp]_[^_]*/.exec(this.wire.apiKey)?.[0] ?? ""}`,
        maxBytes: options.maxBytes ?? 4 * 1024 * 1024,
        maxAgeMs: options.maxAgeMs ?? 7 * 24 * 3_600_000,
        flushIntervalMs: options.flushIntervalMs ?? 1000,
        timeoutMs: options.timeoutMs ?? 10_000,
      },
      this.mistake ? null : options.spool === undefined ? browserSpool() : options.spool,
      options.log ??
        ((line) => {
          console.warn(line);
        }),
    );
    this.stopListening = this.mistake ? () => undefined : listen(this.delivery);
    if (this.mistake) this.fail("not_configured", this.mistake, 0);
  }

  /**
   * A draft by the policy to which the request is routed; null where none comes. Every retry has the same id. Needs a
   * secret key. A strict client throws an RlaasError in place of null.
   */
  async infer(request: InferRequest): Promise<Answer | null> {
    try {
      if (this.mistake) throw new RlaasError(this.mistake, "not_configured");
      const body = JSON.stringify({ ...request, interaction_id: request.interaction_id ?? interactionId() });
      return (await this.ask("infer", body)) as Answer;
    } catch (error) {
      if (this.strict) throw error;
      this.delivery.note("no draft", 1, String(error));
      return null;
    }
  }

  /**
   * The token with which a page gives feedback on an output that `logOutput` or `wrapOpenAI` reported (`infer` returns
   * it with its answer); null where none comes. Needs a secret key. A strict client throws an RlaasError in place of
   * null.
   */
  async feedbackToken(output: FeedbackTokenRequest): Promise<string | null> {
    try {
      if (this.mistake) throw new RlaasError(this.mistake, "not_configured");
      const answer = (await this.ask("feedback.token", JSON.stringify(output))) as { feedback_token: string };
      return answer.feedback_token;
    } catch (error) {
      if (this.strict) throw error;
      this.delivery.note("no feedback token", 1, String(error));
      return null;
    }
  }

  /** Report a request that a user made; returns its id. */
  logInteraction(event: Interaction): string {
    return this.take("interaction", "interaction_id", event, () => {
      const id = interactionId();
      this.withoutOutput.add(id);
      const [oldest = id] = this.withoutOutput;
      if (this.withoutOutput.size > REMEMBERED_INTERACTIONS) this.withoutOutput.delete(oldest);
      return id;
    });
  }

  /** Report what answered an interaction; returns the output's id. */
  logOutput(event: Output): string {
    return this.take("output", "output_id", event, ({ interaction_id: about }) =>
      // Only the client that made the interaction knows which output is its first.
      this.withoutOutput.delete(about) ? firstOutputId(about) : boundId("out", about),
    );
  }

  /**
   * Report what a person did with an output; returns the feedback's id. In a page the feedback needs the output's
   * `feedback_token`, and the service stores it under an id that it derives from this one.
   */
  submitFeedback(event: Feedback): string {
    return this.take("feedback", "feedback_id", event, (about) =>
      boundId("fbk", about.interaction_id, about.output_id),
    );
  }

  /** Report a business outcome that became known later; returns its id. */
  taskResult(event: TaskResult): string {
    return this.take("task_result", "task_result_id", event, (about) => boundId("tsk", about.interaction_id));
  }

  /**
   * Deliver what waits, for at most `timeoutMs`; returns whether nothing waits any more. Await it in a Lambda function
   * before the handler returns. A strict client throws an RlaasError where events still wait, or were refused since the
   * last call.
   */
  async flush(timeoutMs = 10_000): Promise<boolean> {
    return this.checkDelivered(await this.delivery.flush(timeoutMs));
  }

  /**
   * Flush and stop; returns whether nothing waits any more. What still waits is sent by the next client on the same
   * spool.
   */
  async close(timeoutMs = 10_000): Promise<boolean> {
    this.stopListening();
    return this.checkDelivered(await this.delivery.close(timeoutMs));
  }

  /** The counts so far. */
  stats(): Stats {
    return this.delivery.stats();
  }

  private take<E extends { skill: string; occurred_at?: string | null }>(
    type: EventType,
    idField: string & keyof E,
    event: E,
    makeId: (event: E) => string,
  ): string {
    let id = "";
    try {
      const ownId: unknown = event[idField];
      id = typeof ownId === "string" ? ownId : makeId(event);
      if (this.mistake) {
        this.fail("not_configured", this.mistake);
        return id;
      }
      if (!ID.test(id)) throw new RlaasError("an id has 1 to 64 letters, digits, _ and -", "invalid", 0, idField);
      if (!SKILL.test(toText(event.skill))) {
        throw new RlaasError(
          "a skill's name has words of a-z and 0-9 joined by hyphens, 28 at most",
          "invalid",
          0,
          "skill",
        );
      }
      const body = JSON.stringify({
        type,
        ...event,
        occurred_at: event.occurred_at ?? new Date().toISOString(),
        [idField]: id,
      });
      const bytes = utf8Bytes(body);
      if (bytes > MAX_EVENT_BYTES) throw new RlaasError(`${bytes} bytes are over ${MAX_EVENT_BYTES}`, "invalid");
      if (!this.delivery.submit(body, bytes) && this.strict)
        throw new RlaasError("no space for the event", "spool_full");
    } catch (error) {
      if (error instanceof RlaasError && error.code !== "invalid") throw error; // counted already, and strict
      this.fail("invalid", error instanceof Error ? error.message : String(error));
    }
    return id;
  }

  private checkDelivered(delivered: boolean): boolean {
    if (!this.strict) return delivered;
    const { waiting, dropped } = this.stats();
    const refusals = (dropped.refused ?? 0) - this.thrownRefusals;
    this.thrownRefusals += refusals;
    if (refusals) throw new RlaasError(`the service refused ${refusals} events`, "refused");
    if (!delivered) throw new RlaasError(`${waiting} events wait`, "undelivered");
    return delivered;
  }

  private fail(reason: Loss, why: string, events = 1): void {
    if (events) this.delivery.drop(reason, events, why);
    else this.delivery.note(reason, 1, why);
    if (this.strict) throw new RlaasError(why, reason);
  }

  private async ask(path: string, body: string): Promise<unknown> {
    const deadline = Date.now() + this.inferTimeoutMs;
    for (let attempt = 1; ; attempt++) {
      const result = await this.attempt(path, body, deadline - Date.now());
      if ("answer" in result) return result.answer;
      const waitMs = result.retryAfterMs + drawBackoffMs(attempt);
      if (!isTransient(result.error.status) || attempt === INFER_ATTEMPTS || Date.now() + waitMs >= deadline)
        throw result.error;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  private async attempt(
    path: string,
    body: string,
    timeoutMs: number,
  ): Promise<{ answer: unknown } | { error: RlaasError; retryAfterMs: number }> {
    try {
      const response = await post(this.wire, path, body, timeoutMs);
      if (response.ok) return { answer: await readAnswer(response) };
      return { error: await readError(response), retryAfterMs: readRetryAfterMs(response) };
    } catch (error) {
      return {
        error: error instanceof RlaasError ? error : new RlaasError(describeFailure(error), "no_answer"),
        retryAfterMs: 0,
      };
    }
  }
}

/** `value` where it is a string, else an empty one: at run time an option may have any type. */
function toText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isTransient(status: number): boolean {
  return status === 0 || status === 429 || status >= 500;
}

function findMistake({ apiUrl, apiKey }: Wire): string | undefined {
  if (!/^https?:\/\//.test(apiUrl) || !URL.canParse(apiUrl)) return "apiUrl must be the API's address";
  // The error of `fetch` would repeat a key that holds a line break.
  if (!/^rl[kp]_[\x21-\x7e]*$/.test(apiKey)) return "apiKey must be rlk_... or, in a page, rlp_...";
  // Pages and workers, also those of an extension, have a location; servers have none.
  if (apiKey.startsWith("rlk_") && typeof location !== "undefined") {
    return "a secret key (rlk_) must not be in a page: revoke it, and use a publishable one (rlp_)";
  }
  return undefined;
}

/**
 * Send when the page is hidden, when it is online again, and when Node has nothing else to do. Returns a function that
 * stops this.
 */
function listen(delivery: Delivery): () => void {
  const node = globalThis.process as { once?: NodeEvents; off?: NodeEvents } | undefined;
  const exit = (): void => void delivery.flush(5000);
  const hide = (): void => {
    if (typeof document === "undefined" || document.visibilityState === "hidden") delivery.leave();
  };
  const leave = (): void => {
    delivery.leave();
  };
  const online = (): void => {
    delivery.wake(0);
  };
  const target = globalThis as Partial<EventTarget>;
  // `visibilitychange` is the last event that phones send reliably; it bubbles from the document to the window.
  target.addEventListener?.("visibilitychange", hide);
  target.addEventListener?.("pagehide", leave);
  target.addEventListener?.("online", online);
  node?.once?.("beforeExit", exit);
  return () => {
    target.removeEventListener?.("visibilitychange", hide);
    target.removeEventListener?.("pagehide", leave);
    target.removeEventListener?.("online", online);
    node?.off?.("beforeExit", exit);
  };
}

type NodeEvents = (name: "beforeExit", listener: () => void) => unknown;
