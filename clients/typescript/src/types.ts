/** The types of requests and answers, from the OpenAPI document; their fields have the names of the HTTP API. */
import type { components } from "./openapi.js";

type Schemas = components["schemas"];

/** A request that a user made. Needs `inputs` or `messages`. */
export type Interaction = Omit<Schemas["BatchedInteraction"], "type">;
/** What answered an interaction. */
export type Output = Omit<Schemas["BatchedOutput"], "type">;
/** What a person did with an output; `kind` says which one of the other fields is given. */
export type Feedback = Omit<Schemas["BatchedFeedback"], "type">;
/** A business outcome that became known later. */
export type TaskResult = Omit<Schemas["BatchedTaskResult"], "type">;
export type EventType = Schemas["EventBatch"]["events"][number]["type"];
export type BatchResult = Schemas["BatchResult"];
export type ApiError = Schemas["Error"]["error"];
export type Message = Schemas["Message"];

export type InferRequest = Schemas["InferRequest"];
export type FeedbackTokenRequest = Schemas["FeedbackTokenRequest"];
/** A draft. Feedback names one of its ids; a page that gives feedback needs its token. */
export type Answer = { output_id: string; feedback_token: string; idempotent_replay: boolean } & Required<
  Pick<
    Schemas["OutputProduced"],
    "interaction_id" | "text" | "policy_id" | "decision" | "usage" | "cost_usd" | "finish_reason" | "latency_ms"
  >
>;
