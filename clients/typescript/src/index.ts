export { browserSpool, indexedDbSpool, localStorageSpool } from "./browser.js";
export { Rlaas, type Options } from "./client.js";
export type { Loss, Stats } from "./delivery.js";
export { traceOf, wrapOpenAI, type Trace, type Tracing } from "./openai.js";
export type { components, paths } from "./openapi.js";
export type { Entry, Spool } from "./spool.js";
export { RlaasError } from "./transport.js";
export type * from "./types.js";
