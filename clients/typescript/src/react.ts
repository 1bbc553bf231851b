/** A React hook for a draft: it follows the edits and reports that the draft was sent, discarded or drafted again. */
import { useCallback, useRef, useState } from "react";

import type { Rlaas } from "./client.js";
import type { Answer, InferRequest } from "./types.js";

/** What the page gets from its back end: the answer of `infer` with its skill. */
export type Draft = Pick<Answer, "output_id" | "text" | "feedback_token"> & Pick<InferRequest, "skill">;

export type DraftStatus = "editing" | "sending" | "sent" | "discarded" | "regenerated";

export interface UseRlaasDraft {
  /** The draft's text with the user's edits. */
  text: string;
  setText: (text: string) => void;
  /** Whether `text` differs from the draft. */
  edited: boolean;
  status: DraftStatus;
  /** The error of the last attempt to send; undefined where it succeeded or there was none. */
  error: unknown;
  /**
   * Hand the text to `onSend`; when that succeeds, report the edit, if there is one, and that the text was sent. A
   * draft is sent once, however often this is called.
   */
  send: () => Promise<void>;
  /** Report that the draft was thrown away. */
  discard: () => void;
  /** Report that the user asked for another draft; pass that one to the hook when it comes. */
  regenerate: () => void;
}

interface State {
  draftId: string | undefined;
  text: string;
  status: DraftStatus;
  error: unknown;
}

/**
 * Follow one draft (null while there is none); with another `output_id` the hook starts afresh. `onSend` delivers the
 * text; when it fails, nothing is reported and the draft can be sent again.
 */
export function useRlaasDraft(options: {
  rlaas: Pick<Rlaas, "submitFeedback">;
  draft: Draft | null;
  onSend?: (text: string) => unknown;
}): UseRlaasDraft {
  const { rlaas, draft, onSend } = options;
  const initial: State = { draftId: draft?.output_id, text: draft?.text ?? "", status: "editing", error: undefined };
  const [current, setState] = useState(initial);
  const state = current.draftId === initial.draftId ? current : initial;
  if (state !== current) setState(initial);
  const endedDraftId = useRef<string | undefined>(undefined);

  const change = useCallback(
    (part: Partial<State>) => {
      // The page may have moved on to another draft meanwhile, which this change is not about.
      setState((now) => (now.draftId === draft?.output_id ? { ...now, ...part } : now));
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
  /** Begin to end the draft; false where it has ended already. Two clicks in one frame see the same state. */
  const begin = (): boolean => {
    if (!draft || state.status !== "editing" || endedDraftId.current === draft.output_id) return false;
    endedDraftId.current = draft.output_id;
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
        endedDraftId.current = undefined;
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
