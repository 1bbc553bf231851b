// @vitest-environment jsdom
import { act, renderHook } from "@testing-library/react";
import { StrictMode } from "react";
import { beforeEach, expect, test } from "vitest";

import type { Feedback } from "../src/index.js";
import { useRlaasDraft, type Draft, type UseRlaasDraft } from "../src/react.js";

const DRAFT: Draft = { skill: "greet", output_id: "out_1", text: "Hi", feedback_token: "said.proof" };
const ABOUT = { skill: "greet", output_id: "out_1", feedback_token: "said.proof" };

let submitted: Feedback[];
const rlaas = {
  submitFeedback: (event: Feedback): string => {
    submitted.push(event);
    return "fbk_1";
  },
};
beforeEach(() => {
  submitted = [];
});

function use(
  draft: Draft | null,
  onSend?: (text: string) => unknown,
): { result: { current: UseRlaasDraft }; show: (next: Draft) => void } {
  const { result, rerender } = renderHook(
    (props) => useRlaasDraft({ rlaas, draft: props, ...(onSend && { onSend }) }),
    {
      initialProps: draft,
      wrapper: StrictMode,
    },
  );
  return { result, show: rerender };
}

test("an edited draft that is sent gives an edit and an action, after it was delivered", async () => {
  const delivered: string[] = [];
  const { result } = use(DRAFT, (text) => {
    expect(submitted).toEqual([]);
    delivered.push(text);
  });
  expect(result.current).toMatchObject({ text: "Hi", edited: false, status: "editing" });
  act(() => {
    result.current.setText("Hi Ada");
  });
  expect(result.current.edited).toBe(true);
  await act(() => result.current.send());
  expect(delivered).toEqual(["Hi Ada"]);
  expect(submitted).toEqual([
    { ...ABOUT, kind: "edit", final_text: "Hi Ada" },
    { ...ABOUT, kind: "action", action: "sent" },
  ]);
  expect(result.current.status).toBe("sent");
});

test("a draft that is sent as it is gives an action alone, however often one clicks", async () => {
  const { result } = use(DRAFT);
  await act(async () => {
    const { send, discard } = result.current;
    await Promise.all([send(), send()]);
    discard();
  });
  await act(() => result.current.send());
  expect(submitted).toEqual([{ ...ABOUT, kind: "action", action: "sent" }]);
});

test("when delivery fails nothing is reported and the draft can be sent again", async () => {
  let works = false;
  const { result } = use(DRAFT, () => (works ? undefined : Promise.reject(new Error("mail server down"))));
  await act(() => result.current.send());
  expect(result.current).toMatchObject({ status: "editing", error: new Error("mail server down") });
  expect(submitted).toEqual([]);
  works = true;
  await act(() => result.current.send());
  expect(result.current).toMatchObject({ status: "sent", error: undefined });
});

test.each([
  ["discard", "discarded"],
  ["regenerate", "regenerated"],
] as const)("%s reports the action %s and no edit", (method, action) => {
  const { result } = use(DRAFT);
  act(() => {
    result.current.setText("never mind");
    result.current[method]();
  });
  expect(submitted).toEqual([{ ...ABOUT, kind: "action", action }]);
  expect(result.current.status).toBe(action);
});

test("another draft starts afresh, and a late end of the first does not touch it", async () => {
  let deliver = (): void => undefined;
  const { result, show } = use(DRAFT, () => new Promise<void>((resolve) => (deliver = resolve)));
  let sending: Promise<void> | undefined;
  act(() => {
    result.current.setText("Hi Ada");
  });
  act(() => {
    sending = result.current.send();
  });
  show({ ...DRAFT, output_id: "out_2", text: "Hello" });
  expect(result.current).toMatchObject({ text: "Hello", edited: false, status: "editing" });
  await act(async () => {
    deliver();
    await sending;
  });
  expect(submitted.map(({ output_id }) => output_id)).toEqual(["out_1", "out_1"]);
  expect(result.current.status).toBe("editing");
});

test("without a draft nothing is reported", async () => {
  const { result } = use(null);
  await act(() => result.current.send());
  act(() => {
    result.current.discard();
  });
  expect(submitted).toEqual([]);
  expect(result.current.text).toBe("");
});
