/** HTTP to the service, and what became of it. */
import type { ApiError, BatchResult } from "./types.js";

const BASE_MS = 200;
const CAP_MS = 30_000;
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/**
 * The service's word on each event of a batch, in order: true stored, null to be sent again, a text why it was refused.
 */
export type Verdict = true | null | string;
export type Outcome =
  | { verdicts: Verdict[]; retryAfterMs: number }
  /** The body as a whole was refused. */
  | { notABatch: string }
  /** Nothing is known of the events: send them again. */
  | { failed: string; retryAfterMs: number };

/** What the service said no to, or why it could not be asked. */
export class RlaasError extends Error {
  override name = "RlaasError";
  /** `status` is 0 where no answer came. */
  constructor(
    message: string,
    readonly code: string,
    readonly status = 0,
    readonly param: string | null = null,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

export interface Wire {
  apiUrl: string;
  apiKey: string;
  fetch: typeof fetch;
}

/** One POST. Rejects where no answer comes within `timeoutMs`. */
export function post(wire: Wire, path: string, body: string, timeoutMs: number, keepalive = false): Promise<Response> {
  return wire.fetch(`${wire.apiUrl}/v1/${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${wire.apiKey}`, "Content-Type": "application/json" },
    body,
    keepalive,
    signal: AbortSignal.timeout(timeoutMs),
  });
}

/** One attempt at a batch of events. Never rejects. */
export async function postBatch(wire: Wire, bodies: string[], timeoutMs: number, keepalive = false): Promise<Outcome> {
  try {
    const response = await post(wire, "events:batch", `{"events":[${bodies.join()}]}`, timeoutMs, keepalive);
    if (response.status === 200) {
      const { results } = (await response.json()) as { results: BatchResult[] };
      if (results.length !== bodies.length) throw new Error(`${results.length} results for ${bodies.length} events`);
      return { verdicts: results.map(verdict), retryAfterMs: retryAfterMs(response) };
    }
    const why = (await errorOf(response)).message;
    if ([400, 413, 422].includes(response.status)) return { notABatch: why };
    return { failed: `HTTP ${response.status}: ${why}`, retryAfterMs: retryAfterMs(response) };
  } catch (error) {
    return { failed: String(error), retryAfterMs: 0 };
  }
}

/** How long to wait after so many failures in a row: uniform in [0, min(30 s, 0.2 s * 2^failures)] (full jitter). */
export function jitteredMs(failures: number): number {
  return Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** failures);
}

/** What the service asked to wait, by seconds or HTTP date, at most an hour; 0 where it did not ask. */
export function retryAfterMs(response: Response): number {
  const asked = response.headers.get("Retry-After");
  if (!asked) return 0;
  const ms = Number.isNaN(Number(asked)) ? Date.parse(asked) - Date.now() : Number(asked) * 1000;
  return ms > 0 ? Math.min(ms, LONGEST_RETRY_AFTER_MS) : 0;
}

/** The error in an answer that is not a success. */
export async function errorOf(response: Response): Promise<RlaasError> {
  try {
    const { error } = (await response.json()) as { error: ApiError };
    return new RlaasError(error.message, error.code, response.status, error.param, error.request_id);
  } catch {
    return new RlaasError(`HTTP ${response.status}`, "unknown", response.status);
  }
}

function verdict({ status, error }: { status: number; error?: ApiError }): Verdict {
  if (status < 300) return true;
  if (status === 429 || status >= 500) return null;
  return `${status} ${error?.code ?? ""} ${error?.param ?? ""}`.trim();
}
