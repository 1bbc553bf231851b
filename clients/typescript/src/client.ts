import { browserSpool } from "./browser.js";
import { Delivery, utf8Bytes, type Loss, type Stats } from "./delivery.js";
import { boundId, firstOutputId, interactionId } from "./ids.js";
import type { Spool } from "./spool.js";
import { errorOf, jitteredMs, post, retryAfterMs, RlaasError, type Wire } from "./transport.js";
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
   * Throw what otherwise is counted and logged: events that are invalid or find no room, answers that `infer` does not
   * get.
   */
  strict?: boolean;
  /**
   * Where events outlive the page: by default IndexedDB, else localStorage, else nowhere; null: memory alone. In Node
   * see `@rlaas/sdk/node`.
   */
  spool?: Spool | Promise<Spool | null> | null;
  /**
   * Whose the events in the spool are; by default the address and the key's public part. A name keeps them over a
   * change of key.
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
  /** How long `infer` may take, all its attempts together. 35 seconds. */
  inferTimeoutMs?: number;
  /** Hears what goes wrong, at most once a minute for each kind. `console.warn`. */
  log?: (line: string) => void;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
}

/**
 * Asks RLaaS for drafts and reports what became of them.
 *
 * The methods that report return the event's id at once and never throw or wait (unless `strict`): the event is queued,
 * copied to the spool, and sent in the background until the service has acknowledged it.
 */
export class Rlaas {
  private readonly wire: Wire;
  private readonly delivery: Delivery;
  private readonly strict: boolean;
  private readonly inferTimeoutMs: number;
  private readonly misconfigured: string | undefined;
  private refusalsThrown = 0;
  private readonly withoutOutput = new Set<string>();
  private readonly stopListening: () => void;

  constructor(options: Options) {
    this.strict = options.strict ?? false;
    this.inferTimeoutMs = options.inferTimeoutMs ?? 35_000;
    this.wire = {
      apiUrl: text(options.apiUrl).replace(/\/+$/, ""),
      apiKey: text(options.apiKey),
      fetch: options.fetch ?? ((...request) => fetch(...request)),
    };
    this.misconfigured = misconfigured(this.wire);
    this.delivery = new Delivery(
      this.wire,
      {
        owner: options.owner ?? `${this.wire.apiUrl} ${/^rl[kp]_[^_]*/.exec(this.wire.apiKey)?.[0] ?? ""}`,
        maxBytes: options.maxBytes ?? 4 * 1024 * 1024,
        maxAgeMs: options.maxAgeMs ?? 7 * 24 * 3_600_000,
        flushIntervalMs: options.flushIntervalMs ?? 1000,
        timeoutMs: options.timeoutMs ?? 10_000,
      },
      this.misconfigured ? null : options.spool === undefined ? browserSpool() : options.spool,
      options.log ??
        ((line) => {
          console.warn(line);
        }),
    );
    this.stopListening = this.misconfigured ? () => undefined : listen(this.delivery);
    if (this.misconfigured) this.failed("not_configured", this.misconfigured, 0);
  }

  /**
   * A draft by the policy that the request is routed to, retried under one id; null where none comes. Needs a secret
   * key.
   */
  async infer(request: InferRequest): Promise<Answer | null> {
    try {
      if (this.misconfigured) throw new RlaasError(this.misconfigured, "not_configured");
      const body = JSON.stringify({ ...request, interaction_id: request.interaction_id ?? interactionId() });
      return (await this.asked("infer", body)) as Answer;
    } catch (error) {
      if (this.strict) throw error;
      this.delivery.note("no draft", 1, String(error));
      return null;
    }
  }

  /**
   * What the page that shows an output gives feedback by, for outputs that `logOutput` or `wrapOpenAI` report; `infer`
   * gives it with its answer. Null where none comes. Needs a secret key.
   */
  async feedbackToken(output: FeedbackTokenRequest): Promise<string | null> {
    try {
      if (this.misconfigured) throw new RlaasError(this.misconfigured, "not_configured");
      const made = (await this.asked("feedback.token", JSON.stringify(output))) as { feedback_token: string };
      return made.feedback_token;
    } catch (error) {
      if (this.strict) throw error;
      this.delivery.note("no feedback token", 1, String(error));
      return null;
    }
  }

  /** Report a request that a user made; its id. */
  logInteraction(event: Interaction): string {
    return this.take("interaction", "interaction_id", event, () => {
      const id = interactionId();
      this.withoutOutput.add(id);
      const [oldest = id] = this.withoutOutput;
      if (this.withoutOutput.size > REMEMBERED_INTERACTIONS) this.withoutOutput.delete(oldest);
      return id;
    });
  }

  /** Report what answered it; its id. */
  logOutput(event: Output): string {
    return this.take("output", "output_id", event, ({ interaction_id: about }) =>
      // Only who made the interaction knows which output is its first.
      this.withoutOutput.delete(about) ? firstOutputId(about) : boundId("out", about),
    );
  }

  /**
   * Report what a person did with an output; its id. In a page it needs the output's `feedback_token`, and the service
   * stores it under an id that it makes of this one.
   */
  submitFeedback(event: Feedback): string {
    return this.take("feedback", "feedback_id", event, (about) =>
      boundId("fbk", about.interaction_id, about.output_id),
    );
  }

  /** Report a business outcome that became known later; its id. */
  taskResult(event: TaskResult): string {
    return this.take("task_result", "task_result_id", event, (about) => boundId("tsk", about.interaction_id));
  }

  /**
   * Deliver what waits, for at most `timeoutMs`; whether nothing waits any more. In a Lambda function: before its
   * handler returns. A strict client throws where something waits, or was refused since the last time.
   */
  async flush(timeoutMs = 10_000): Promise<boolean> {
    return this.checked(await this.delivery.flush(timeoutMs));
  }

  /** Flush and stop; whether nothing waits any more. What does is sent by the next client on the same spool. */
  async close(timeoutMs = 10_000): Promise<boolean> {
    this.stopListening();
    return this.checked(await this.delivery.close(timeoutMs));
  }

  /** Counts until now. */
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
      const given: unknown = event[idField];
      id = typeof given === "string" ? given : makeId(event);
      if (this.misconfigured) {
        this.failed("not_configured", this.misconfigured);
        return id;
      }
      if (!ID.test(id)) throw new RlaasError("an id has 1 to 64 letters, digits, _ and -", "invalid", 0, idField);
      if (!SKILL.test(text(event.skill))) {
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
        throw new RlaasError("no room for the event", "spool_full");
    } catch (error) {
      if (error instanceof RlaasError && error.code !== "invalid") throw error; // counted already, and strict
      this.failed("invalid", error instanceof Error ? error.message : String(error));
    }
    return id;
  }

  private checked(delivered: boolean): boolean {
    if (!this.strict) return delivered;
    const { waiting, dropped } = this.stats();
    const refused = (dropped.refused ?? 0) - this.refusalsThrown;
    this.refusalsThrown += refused;
    if (refused) throw new RlaasError(`the service refused ${refused} events`, "refused");
    if (!delivered) throw new RlaasError(`${waiting} events wait`, "undelivered");
    return delivered;
  }

  private failed(reason: Loss, why: string, events = 1): void {
    if (events) this.delivery.drop(reason, events, why);
    else this.delivery.note(reason, 1, why);
    if (this.strict) throw new RlaasError(why, reason);
  }

  private async asked(path: string, body: string): Promise<unknown> {
    const deadline = Date.now() + this.inferTimeoutMs;
    for (let attempt = 1; ; attempt++) {
      const got = await this.attempt(path, body, deadline - Date.now());
      if ("answer" in got) return got.answer;
      const waitMs = got.askedMs + jitteredMs(attempt);
      if (!isPassing(got.error.status) || attempt === INFER_ATTEMPTS || Date.now() + waitMs >= deadline)
        throw got.error;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  private async attempt(
    path: string,
    body: string,
    timeoutMs: number,
  ): Promise<{ answer: unknown } | { error: RlaasError; askedMs: number }> {
    try {
      const response = await post(this.wire, path, body, timeoutMs);
      if (response.ok) return { answer: (await response.json()) as unknown };
      return { error: await errorOf(response), askedMs: retryAfterMs(response) };
    } catch (error) {
      return { error: new RlaasError(String(error), "no_answer"), askedMs: 0 };
    }
  }
}

/** What is not a text, for all its type says, as an empty one. */
function text(given: unknown): string {
  return typeof given === "string" ? given : "";
}

function isPassing(status: number): boolean {
  return status === 0 || status === 429 || status >= 500;
}

function misconfigured({ apiUrl, apiKey }: Wire): string | undefined {
  if (!/^https?:\/\//.test(apiUrl)) return "apiUrl must be the API's address";
  if (!/^rl[kp]_/.test(apiKey)) return "apiKey must be rlk_... or, in a page, rlp_...";
  // Pages and workers have a location, those of an extension too; servers have none.
  if (apiKey.startsWith("rlk_") && typeof location !== "undefined") {
    return "a secret key (rlk_) must not be in a page: revoke it, and use a publishable one (rlp_)";
  }
  return undefined;
}

/** Send when the page is hidden, on reconnect, and when Node has nothing else to do; the answer undoes it. */
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
  // `visibilitychange` is the last event that phones reliably send; it bubbles from the document to the window.
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
