/** Sends requests to the service and reads what became of them. */
import type { ApiError, BatchResult } from "./types.js";

const BASE_MS = 200;
const CAP_MS = 30_000;
/** The code of an error that something else than RLaaS answered. */
const FOREIGN = "unknown";
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** What became of an event: true where it is stored, null where it has to be sent again, else why it was refused. */
export type Verdict = true | null | string;
export type Outcome =
  /** One verdict for each event of the batch, in order. */
  | { verdicts: Verdict[]; retryAfterMs: number }
  /** The service refused the body as a whole, for this reason. */
  | { notABatch: string }
  /** No event is known to be stored: send all of them again. */
  | { failure: string; retryAfterMs: number };

/** Why the service refused a request, or why it could not be asked. */
export class RlaasError extends Error {
  override name = "RlaasError";
  /** `status` is the HTTP status, 0 where no response came. */
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

/** Send one POST. Rejects where no response comes within `timeoutMs`. */
export function post(wire: Wire, path: string, body: string, timeoutMs: number, keepalive = false): Promise<Response> {
  return wire.fetch(`${wire.apiUrl}/v1/${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${wire.apiKey}`, "Content-Type": "application/json" },
    body,
    keepalive,
    signal: AbortSignal.timeout(timeoutMs),
  });
}

/** Send a batch of events, once. Never rejects. */
export async function postBatch(wire: Wire, bodies: string[], timeoutMs: number, keepalive = false): Promise<Outcome> {
  try {
    const response = await post(wire, "events:batch", `{"events":[${bodies.join()}]}`, timeoutMs, keepalive);
    if (response.status === 200) {
      const { results } = (await readAnswer(response)) as { results: BatchResult[] };
      if (results.length !== bodies.length) throw new Error(`${results.length} results for ${bodies.length} events`);
      return { verdicts: results.map(readVerdict), retryAfterMs: readRetryAfterMs(response) };
    }
    const { message, code } = await readError(response);
    // What else answers 400 has not read the events; a body may be too large for anything on the way.
    const isRefused = response.status === 413 || ([400, 422].includes(response.status) && code !== FOREIGN);
    if (isRefused) return { notABatch: message };
    return {
      failure: code === FOREIGN ? message : `HTTP ${response.status}: ${message}`,
      retryAfterMs: readRetryAfterMs(response),
    };
  } catch (error) {
    return { failure: describeFailure(error), retryAfterMs: 0 };
  }
}

/**
 * The milliseconds to wait after so many failures in a row: uniform in [0, min(30 s, 0.2 s * 2^failures)] (full
 * jitter).
 */
export function drawBackoffMs(failures: number): number {
  return Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** failures);
}

/**
 * The milliseconds that the service asks to wait, given as seconds or as an HTTP date, at most an hour; 0 where it does
 * not ask.
 */
export function readRetryAfterMs(response: Response): number {
  const header = response.headers.get("Retry-After");
  if (!header) return 0;
  const ms = Number.isNaN(Number(header)) ? Date.parse(header) - Date.now() : Number(header) * 1000;
  return ms > 0 ? Math.min(ms, LONGEST_RETRY_AFTER_MS) : 0;
}

/** The error in a response that is not a success. */
export async function readError(response: Response): Promise<RlaasError> {
  try {
    const { error } = (await response.json()) as { error: ApiError };
    return new RlaasError(error.message, error.code, response.status, error.param, error.request_id);
  } catch {
    return buildForeignError(response);
  }
}

/** The JSON object in a response that is a success. Rejects where something else answered. */
export async function readAnswer(response: Response): Promise<object> {
  const answer = (await response.json().catch(() => null)) as unknown;
  if (typeof answer !== "object" || answer === null) throw buildForeignError(response);
  return answer;
}

/** Why no response came: `fetch` itself says only that it failed. */
export function describeFailure(error: unknown): string {
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error ? `${String(error)}: ${cause.message}` : String(error);
}

function buildForeignError(response: Response): RlaasError {
  const type = response.headers.get("Content-Type")?.split(";")[0] ?? "no content type";
  const message = `HTTP ${response.status} (${type}), and the response is not one of RLaaS's`;
  return new RlaasError(message, FOREIGN, response.status);
}

function readVerdict({ status, error }: { status: number; error?: ApiError }): Verdict {
  if (status < 300) return true;
  if (status === 429 || status >= 500) return null;
  return `${status} ${error?.code ?? ""} ${error?.param ?? ""}`.trim();
}
