/** React hooks: a draft, its edit state, and the feedback that sending and discarding it are. */
import { useCallback, useRef, useState } from "react";

import type { Rlaas } from "./client.js";
import type { Answer, InferRequest } from "./types.js";

/** What the page got from its back end: the answer of `infer` with its skill. */
export type Draft = Pick<Answer, "output_id" | "text" | "feedback_token"> & Pick<InferRequest, "skill">;

export type DraftStatus = "editing" | "sending" | "sent" | "discarded" | "regenerated";

export interface UseRlaasDraft {
  /** As edited. */
  text: string;
  setText: (text: string) => void;
  /** Whether `text` differs from what was drafted. */
  edited: boolean;
  status: DraftStatus;
  /** What the last attempt to send failed with. */
  error: unknown;
  /**
   * Hand the text to `onSend`; when that succeeds, report the edit, if there is one, and that it was sent. Once for
   * each draft.
   */
  send: () => Promise<void>;
  /** Report that the draft was thrown away. */
  discard: () => void;
  /** Report that another draft was asked for; then pass the new one. */
  regenerate: () => void;
}

interface State {
  of: string | undefined;
  text: string;
  status: DraftStatus;
  error: unknown;
}

/**
 * Follow one draft (null while there is none); another `output_id` starts afresh. `onSend` delivers the text: nothing
 * is reported when it fails, and the draft can be sent again.
 */
export function useRlaasDraft(options: {
  rlaas: Pick<Rlaas, "submitFeedback">;
  draft: Draft | null;
  onSend?: (text: string) => unknown;
}): UseRlaasDraft {
  const { rlaas, draft, onSend } = options;
  const fresh: State = { of: draft?.output_id, text: draft?.text ?? "", status: "editing", error: undefined };
  const [held, setState] = useState(fresh);
  const state = held.of === fresh.of ? held : fresh;
  if (state !== held) setState(fresh);
  const ended = useRef<string | undefined>(undefined);

  const change = useCallback(
    (part: Partial<State>) => {
      // Not when the page has gone on to another draft meanwhile.
      setState((now) => (now.of === draft?.output_id ? { ...now, ...part } : now));
    },
    [draft?.output_id],
  );
  const report = (
    feedback: { kind: "edit"; final_text: string } | { kind: "action"; action: "sent" | "discarded" | "regenerated" },
  ): void => {
    if (!draft) return;
    const { skill, output_id, feedback_token } = draft;
    rlaas.submitFeedback({ skill, output_id, feedback_token, ...feedback });
  };
  /** Whether this is the draft's first end: two clicks in one frame see the same state. */
  const begin = (): boolean => {
    if (!draft || state.status !== "editing" || ended.current === draft.output_id) return false;
    ended.current = draft.output_id;
    return true;
  };
  const end = (action: "discarded" | "regenerated"): void => {
    if (!begin()) return;
    report({ kind: "action", action });
    change({ status: action });
  };
  const edited = draft !== null && state.text !== draft.text;

  return {
    text: state.text,
    setText: (text) => {
      if (state.status === "editing") change({ text });
    },
    edited,
    status: state.status,
    error: state.error,
    send: async () => {
      if (!begin()) return;
      change({ status: "sending", error: undefined });
      try {
        await onSend?.(state.text);
      } catch (error) {
        ended.current = undefined;
        change({ status: "editing", error });
        return;
      }
      if (edited) report({ kind: "edit", final_text: state.text });
      report({ kind: "action", action: "sent" });
      change({ status: "sent" });
    },
    discard: () => {
      end("discarded");
    },
    regenerate: () => {
      end("regenerated");
    },
  };
}
